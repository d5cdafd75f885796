using System.Reflection;

namespace Memopt.Trainer.Config;

/// <summary>A setting of <see cref="RunConfig"/>.</summary>
/// <param name="Section">The section's property in <see cref="RunConfig"/>.</param>
/// <param name="Property">The setting's property in its section.</param>
/// <param name="MapKey">The key that is meant of a map: <c>team</c> in <c>tracking.tags.team</c>.</param>
internal sealed record Setting(PropertyInfo Section, PropertyInfo Property, string? MapKey = null)
{
    /// <summary>Every setting, in the order of declaration.</summary>
    public static IReadOnlyList<Setting> All { get; } =
    [
        .. SettingProperties
            .Of(typeof(RunConfig))
            .SelectMany(section =>
                SettingProperties.Of(section.PropertyType).Select(property => new Setting(section, property))
            ),
    ];

    /// <summary>Every setting's name.</summary>
    public static IEnumerable<string> Names => All.Select(setting => setting.Name);

    /// <summary><c>section.setting</c></summary>
    public string Name => $"{SettingProperties.Key(Section)}.{SettingProperties.Key(Property)}";

    /// <summary>The setting of a name, or null; a third part of the name is a key of a map.</summary>
    public static Setting? Find(string name) =>
        name.Split('.', 3) is [var section, var property, .. var rest]
        && All.FirstOrDefault(setting => setting.Name == $"{section}.{property}") is { } setting
        && (rest.Length == 0 || IsMap(setting.Property.PropertyType))
            ? setting with
            {
                MapKey = rest.FirstOrDefault(),
            }
            : null;

    /// <summary>The setting that an unknown name was probably meant to be: one that another tool calls so, or one whose
    /// last part is written nearly so. <c>section.setting</c> or <c>section.setting=value</c>; null when there is
    /// none.</summary>
    /// <param name="name">As it was written, without dashes before it.</param>
    public static string? Suggest(string name)
    {
        if (KnownAliases.Find(name) is { } known)
            return known;
        var names = Names.ToLookup(setting => KnownAliases.Letters(setting.Split('.')[1]));
        var last = KnownAliases.Letters(name.Split('.')[^1]);
        return NearestName.Of(last, names.Select(group => group.Key)) is { } near ? names[near].First() : null;
    }

    public object? Value(RunConfig config) => Property.GetValue(Section.GetValue(config));

    /// <summary>The config with another value of the setting.</summary>
    public RunConfig With(RunConfig config, object? value) =>
        (RunConfig)
            SettingProperties.With(config, Section, SettingProperties.With(Section.GetValue(config)!, Property, value));

    private static bool IsMap(Type type) =>
        type.IsGenericType && type.GetGenericTypeDefinition() == typeof(IReadOnlyDictionary<,>);
}
