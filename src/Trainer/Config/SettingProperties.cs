using System.Reflection;
using System.Text.Json;

namespace Memopt.Trainer.Config;

/// <summary>The settings that a record declares as its properties.</summary>
internal static class SettingProperties
{
    /// <summary>In the order of their declaration.</summary>
    public static IEnumerable<PropertyInfo> Of(Type record) =>
        record.GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(property => property.CanWrite);

    /// <summary>The name of a property in JSON.</summary>
    public static string Key(MemberInfo property) => JsonNamingPolicy.CamelCase.ConvertName(property.Name);

    public static object Copy(object record) => record.GetType().GetMethod("<Clone>$")!.Invoke(record, null)!;

    /// <summary>A copy of a record with one property changed.</summary>
    public static object With(object record, PropertyInfo property, object? value)
    {
        var copy = Copy(record);
        property.SetValue(copy, value);
        return copy;
    }
}
