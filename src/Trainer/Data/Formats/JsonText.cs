using System.Text.Encodings.Web;
using System.Text.Json;

namespace Memopt.Trainer.Data.Formats;

/// <summary>The one way that rows are written as JSON here: what they are hashed as must not vary.</summary>
internal static class JsonText
{
    public static JavaScriptEncoder Encoder => JavaScriptEncoder.UnsafeRelaxedJsonEscaping;

    public static JsonWriterOptions Plain { get; } =
        new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };
}
