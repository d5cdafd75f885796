using System.Reflection;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Trainer.Config;

/// <summary>Names of an enumeration's values in JSON and on the command line.</summary>
internal static class EnumNames
{
    /// <summary>The name that a value is written by.</summary>
    public static string Spelling(object value) => JsonNamingPolicy.CamelCase.ConvertName(value.ToString()!);

    /// <summary>The values of an enumeration by their names, then by the names that other tools have for
    /// them.</summary>
    public static IReadOnlyDictionary<string, object> Values(Type type)
    {
        var values = Enum.GetValues(type).Cast<object>().ToList();
        var aliases = values.SelectMany(value =>
            (type.GetField(value.ToString()!)?.GetCustomAttribute<AliasAttribute>()?.Names ?? []).Select(name =>
                (name, value)
            )
        );
        return values.Select(value => (Spelling(value), value)).Concat(aliases).ToDictionary();
    }

    /// <summary>The values as a message lists them.</summary>
    public static string OneOf(Type type) =>
        "one of " + string.Join(", ", Enum.GetValues(type).Cast<object>().Select(value => $"\"{Spelling(value)}\""));
}
