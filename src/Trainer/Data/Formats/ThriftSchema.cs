namespace Memopt.Trainer.Data.Formats;

/// <summary>The fields of a Thrift struct by number: "1:i 2:[Page 3:Statistics". A type is i (a whole number), b
/// (bytes or text), t (true or false), y (one byte), d (a double), the name of another struct, or [ and one of these
/// for a list.
/// </summary>
internal sealed class ThriftSchema(params (string Name, string Fields)[] structs)
{
    private readonly Dictionary<string, Dictionary<int, string>> known = structs.ToDictionary(
        entry => entry.Name,
        entry =>
            entry
                .Fields.Split(' ', StringSplitOptions.RemoveEmptyEntries)
                .Select(field => field.Split(':'))
                .ToDictionary(field => int.Parse(field[0]), field => field[1])
    );

    /// <summary>The type of a field; null when the struct has no field of this number.</summary>
    public string? Field(string name, int number) => known[name].GetValueOrDefault(number);
}
