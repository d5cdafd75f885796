using System.Text;
using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>Collects an <see cref="NormalizedString"/> piece by piece, at the cost of the text that it is made
/// of.</summary>
internal sealed class NormalizedStringBuilder(Budget? budget)
{
    private const int BytesPerUnit = 16; // a character and two numbers, with their lists' spare room

    private readonly StringBuilder text = new();
    private readonly List<int> from = [];
    private readonly List<int> to = [];

    public void Append(string units, int start, int end)
    {
        budget?.Spend((long)BytesPerUnit * units.Length); // before it is written: strangers' replacements can be long
        foreach (var unit in units)
            Put(unit, start, end);
    }

    public void Append(Rune rune, int start, int end)
    {
        Span<char> units = stackalloc char[2];
        budget?.Spend(BytesPerUnit);
        foreach (var unit in units[..rune.EncodeToUtf16(units)])
            Put(unit, start, end);
    }

    public void Append(char unit, int start, int end)
    {
        budget?.Spend(BytesPerUnit);
        Put(unit, start, end);
    }

    private void Put(char unit, int start, int end)
    {
        text.Append(unit);
        from.Add(start);
        to.Add(end);
    }

    public void Append(NormalizedString source, int start, int length)
    {
        budget?.Spend((long)BytesPerUnit * length);
        text.Append(source.Text.Slice(start, length));
        for (var i = start; i < start + length; i++)
        {
            from.Add(source.From(i));
            to.Add(source.To(i));
        }
    }

    public NormalizedString Build() => new(text.ToString(), [.. from], [.. to], budget);
}
