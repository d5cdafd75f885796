using LiteDB;

namespace Memopt.Tracking;

/// <summary>Conditions for LiteDB.</summary>
internal static class LiteDbQuery
{
    /// <summary>A condition whose values are parameters. LiteDB compiles each text of a condition to machine code
    /// once, in two milliseconds, and keeps it as long as the process lives: values within the text would be a new one
    /// each time.
    /// </summary>
    public static BsonExpression Where(string condition, params ReadOnlySpan<BsonValue> values) =>
        BsonExpression.Create(condition, values.ToArray());
}
