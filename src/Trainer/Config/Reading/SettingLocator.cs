using System.Text;
using System.Text.Json;

namespace Memopt.Trainer.Config.Reading;

/// <summary>Line and column, from 1, of what a settings file holds.</summary>
internal sealed class SettingLocator(ConfigText text)
{
    private (int Offset, int Line, int Column) last = (0, 1, 1);

    /// <summary>The place of a byte.</summary>
    public (int Line, int Column) At(int offset)
    {
        offset = Math.Min(offset, text.Bytes.Length);
        if (offset < last.Offset)
            last = (0, 1, 1);
        // Counted on from the last place that was asked for: every value of a sweep asks.
        var between = text.Bytes.AsSpan(last.Offset..offset);
        var (lines, behind) = (
            between.Count((byte)'\n'),
            Encoding.UTF8.GetCharCount(between[(between.LastIndexOf((byte)'\n') + 1)..])
        );
        last = (offset, last.Line + lines, lines > 0 ? behind + 1 : last.Column + behind);
        return (last.Line, last.Column);
    }

    /// <summary>The place of a setting; null when it is not written.</summary>
    /// <param name="parts">Its section, if it is in one, its name, and the key that is meant of a map.</param>
    public (int Line, int Column)? Find(string[] parts)
    {
        var reader = text.Reader();
        var inside = "";
        while (reader.Read())
        {
            if (reader.TokenType != JsonTokenType.PropertyName)
                continue;
            if (reader.CurrentDepth == 1)
                inside = reader.GetString()!;
            if (reader.CurrentDepth == parts.Length && inside == parts[0] && reader.GetString() == parts[^1])
                return At((int)reader.TokenStartIndex);
        }
        return null;
    }
}
