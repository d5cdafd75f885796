using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Memopt.Tracking;

/// <summary>A filter and an order, read from text; see <see cref="FilterParser"/> for the language.</summary>
internal sealed record Filter(Func<FilterTarget, bool> Matches, IReadOnlyList<Filter.Key> Order)
{
    /// <summary>What the filter and the order name and not every run has.</summary>
    public IReadOnlyCollection<RecordedName> Names { get; init; } = [];

    /// <summary>One key of an order.</summary>
    public sealed record Key(Operand Operand, bool Descending);

    /// <summary>Where a run stands in the order: the keys' values, then newest first, then by id. As text it asks for
    /// the next page.</summary>
    public sealed record Place(object?[] Keys, long Started, string Id)
    {
        public override string ToString() =>
            Convert.ToBase64String(
                JsonSerializer.SerializeToUtf8Bytes(
                    new Written(
                        [
                            .. Keys.Select(key =>
                                key is double number ? "n" + number.ToString("R", CultureInfo.InvariantCulture)
                                : key is string text ? "t" + text
                                : null
                            ),
                        ],
                        Started,
                        Id
                    )
                )
            );

        public static Place Parse(string text)
        {
            try
            {
                var written = JsonSerializer.Deserialize<Written>(Convert.FromBase64String(text))!;
                return new(
                    [
                        .. written.Keys.Select(key =>
                            key is null ? null
                            : key[0] == 'n' ? double.Parse(key[1..], CultureInfo.InvariantCulture)
                            : (object)key[1..]
                        ),
                    ],
                    written.Started,
                    written.Id
                );
            }
            catch (Exception e)
                when (e is FormatException or JsonException or NullReferenceException or IndexOutOfRangeException)
            {
                throw new QueryException(text, 0, "this is not a page that a query gave.");
            }
        }

        private sealed record Written(string?[] Keys, long Started, string Id);
    }

    /// <summary>The same with more keys of an order.</summary>
    public Filter Then(IReadOnlyList<string> keys)
    {
        var more = keys.Select(FilterParser.Keys).ToList();
        return this with
        {
            Order = [.. Order, .. more.SelectMany(key => key.Order)],
            Names = [.. Names, .. more.SelectMany(key => key.Names)],
        };
    }

    public Place Of(FilterTarget subject) =>
        new([.. Order.Select(key => Sortable(key.Operand, subject))], subject.Run.Started, subject.Run.Id);

    public int Compare(Place a, Place b)
    {
        if (a.Keys.Length != Order.Count || b.Keys.Length != Order.Count)
            throw new QueryException(b.ToString(), 0, "the page belongs to a query with another order.");
        for (var i = 0; i < Order.Count; i++)
        {
            var (x, y) = (a.Keys[i], b.Keys[i]);
            // What is not there comes last, whichever way the order goes, and NaN before it; numbers come before texts.
            var order = (x, y) switch
            {
                (null, null) or (double.NaN, double.NaN) => 0,
                (null, _) => 1,
                (_, null) => -1,
                (double.NaN, _) => 1,
                (_, double.NaN) => -1,
                (double m, double n) => Directed(m.CompareTo(n)),
                (string s, string t) => Directed(string.CompareOrdinal(s, t)),
                (double, _) => Directed(-1),
                _ => Directed(1),
            };
            if (order != 0)
                return order;

            int Directed(int sign) => Order[i].Descending ? -sign : sign;
        }
        return a.Started != b.Started ? b.Started.CompareTo(a.Started) : string.CompareOrdinal(a.Id, b.Id);
    }

    /// <summary>Parameters and tags that are numbers are ordered as such; an id or a commit is a text, though it may
    /// read like one: 26112516e4.</summary>
    private static object? Sortable(Operand operand, FilterTarget subject) =>
        operand.Read(subject) switch
        {
            string text
                when operand.Kind == OperandKind.Loose
                    && double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number)
                    && !double.IsNaN(number) => number,
            string[] several => several.FirstOrDefault(),
            var value => value,
        };
}
