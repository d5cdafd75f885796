using System.Text.Json;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config.Sweeps;

/// <summary>A setting whose values in a sweep file are being read.</summary>
/// <param name="Name">Its name, which may name a key of a map.</param>
/// <param name="Setting">The setting.</param>
/// <param name="Context">Its place in the sweep file.</param>
internal sealed record SweptSetting(string Name, Setting Setting, SettingContext Context)
{
    /// <summary>The value that the reader is at, as JSON; with a problem when the setting refuses it.</summary>
    public string Try(ref Utf8JsonReader reader)
    {
        var start = (int)reader.TokenStartIndex;
        using var document = JsonDocument.ParseValue(ref reader);
        var json = document.RootElement.GetRawText();
        var trial = new ConfigProblems(Context.Problems.File, new([]));
        new ConfigOverrides(trial).Apply(new(), $"{Name}={json}");
        foreach (var problem in trial.All)
            Context.Wrong(start, problem.Message, problem.Code);
        return json;
    }
}
