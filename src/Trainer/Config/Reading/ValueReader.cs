using System.Text.Json;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Reads the value that a reader is at; null when it is something else than is wanted.</summary>
internal delegate object? ReadValue(ref Utf8JsonReader reader, SettingContext setting);

/// <summary>How the values of one type are read.</summary>
/// <param name="Wanted">A right value, as a message asks for it.</param>
/// <param name="Read">Reads one.</param>
internal sealed record ValueReader(string Wanted, ReadValue Read);
