using System.Globalization;
using System.Text;

namespace Memopt.Text.Tokenizers;

/// <summary>Classes of characters as Rust and its regular expressions have them.</summary>
internal static class Characters
{
    /// <summary>What <c>\w</c> matches: alphabetic, marks, decimal digits, connectors and joiners.</summary>
    public static bool IsWord(Rune rune) =>
        rune.Value
            is 0x200C
                or 0x200D
                // Circled and squared letters, the alphabetic characters that are no letters by category.
                or (>= 0x24B6 and <= 0x24E9)
                or (>= 0x1F130 and <= 0x1F149)
                or (>= 0x1F150 and <= 0x1F169)
                or (>= 0x1F170 and <= 0x1F189)
        || Rune.GetUnicodeCategory(rune)
            is UnicodeCategory.UppercaseLetter
                or UnicodeCategory.LowercaseLetter
                or UnicodeCategory.TitlecaseLetter
                or UnicodeCategory.ModifierLetter
                or UnicodeCategory.OtherLetter
                or UnicodeCategory.LetterNumber
                or UnicodeCategory.NonSpacingMark
                or UnicodeCategory.SpacingCombiningMark
                or UnicodeCategory.EnclosingMark
                or UnicodeCategory.DecimalDigitNumber
                or UnicodeCategory.ConnectorPunctuation;

    public static bool IsNumeral(Rune rune) =>
        Rune.GetUnicodeCategory(rune)
            is UnicodeCategory.DecimalDigitNumber
                or UnicodeCategory.LetterNumber
                or UnicodeCategory.OtherNumber;

    /// <summary>Punctuation by category, and all ASCII symbols.</summary>
    public static bool IsPunctuation(Rune rune) => Punctuation.Contains(rune.Value);

    public static bool IsMark(Rune rune) => !rune.IsAscii && Mark.Contains(rune.Value);

    /// <summary>Marks that take no space of their own, as BERT strips them.</summary>
    public static bool IsAccent(Rune rune) => !rune.IsAscii && Accent.Contains(rune.Value);

    /// <summary>Control characters and others that BERT removes.</summary>
    public static bool IsUnclean(Rune rune) => Unclean.Contains(rune.Value);

    private static readonly CodePointSet Punctuation = CodePointSet.OfReference("punctuation"),
        Mark = CodePointSet.OfReference("mark"),
        Accent = CodePointSet.OfReference("accent"),
        Unclean = CodePointSet.OfReference("unclean");
}
