using System.Text;
using System.Text.Json.Nodes;
using Memopt.Core;
using Memopt.Trainer.Config.DeepSpeed;
using Memopt.Trainer.Config.Reading;

namespace Memopt.Trainer.Config;

/// <summary>memopt.json → <see cref="RunConfig"/>, or every problem at once with line and column. Comments and trailing
/// commas are allowed.</summary>
internal static class RunConfigFile
{
    /// <param name="path">The file.</param>
    /// <param name="overrides">Settings as <c>a.b=value</c>; the value is JSON, or a string when it is not.</param>
    /// <param name="checkFiles">Whether data and model must exist.</param>
    /// <param name="ranks">The ranks that a launcher started; null where distributed.gpus says.</param>
    public static ProjectConfig Read(
        string path,
        IReadOnlyList<string> overrides,
        bool checkFiles = true,
        int? ranks = null
    )
    {
        if (!File.Exists(path))
        {
            throw new UserFault(
                $"{path} is missing.",
                found: $"no such file in {Path.GetDirectoryName(Path.GetFullPath(path))}",
                next: "dotnet new memopt-qlora -n MyTune   (or name a config: dotnet memopt run my.json)"
            );
        }
        var text = UntrustedFile.ReadAllBytes(path, UntrustedFile.Settings);
        return Read(new(path, text) { CheckFiles = checkFiles, Ranks = ranks }, overrides);
    }

    /// <summary>The defaults with overrides, where there is no file.</summary>
    public static ProjectConfig Default(IReadOnlyList<string> overrides) =>
        Read(new("memopt.json", "{}"u8.ToArray()) { CheckFiles = false }, overrides);

    /// <summary>Settings that a program made, as if they were a file of this name.</summary>
    internal static ProjectConfig Read(string path, RunConfig config, IReadOnlyList<string> overrides) =>
        Read(new(path, Encoding.UTF8.GetBytes(ConfigWriter.Write(config).ToJsonString())) { Whole = true }, overrides);

    /// <summary>The settings that a run recorded, with overrides; paths in them are relative to where
    /// <paramref name="path"/> would lie. What a DeepSpeed file decided is among them: it is not read again.</summary>
    public static ProjectConfig Recorded(string path, string json, IReadOnlyList<string> overrides) =>
        Read(new(path, Encoding.UTF8.GetBytes(json)) { Whole = true, Recorded = true }, overrides);

    /// <summary>The same config with other settings, as if they were written in it.</summary>
    internal static ProjectConfig With(ProjectConfig loaded, RunConfig config) =>
        loaded with
        {
            Settings = config,
            Json = ConfigWriter.Indented(config),
            Hash = PinnedSettings.Hash(config),
        };

    /// <summary>A problem of a setting that shows only when the config is put to use, at its place in the
    /// file.</summary>
    public static Problem At(ProjectConfig config, string path, string message, string code)
    {
        if (!File.Exists(config.File))
            return new(path, message, Code: code); // a config made in code
        var text = new ConfigText(UntrustedFile.ReadAllBytes(config.File, UntrustedFile.Settings));
        var problems = new ConfigProblems(config.File, text);
        problems.AddOf(path, message, code);
        return problems.All[0];
    }

    private static ProjectConfig Read(Source source, IReadOnlyList<string> changes)
    {
        var text = new ConfigText(source.Text);
        var problems = new ConfigProblems(source.File, text);
        var overrides = new ConfigOverrides(problems);
        var config = new ConfigReader(problems) { Whole = source.Whole }.Read(text, new RunConfig());
        foreach (var change in changes)
            config = overrides.Apply(config, change);
        var deepSpeed = problems.Count == 0 ? DeepSpeedOf(config, source, overrides, problems) : null;
        if (deepSpeed is not null)
            config = new DeepSpeedSettings(source.File, problems, overrides).Apply(
                config,
                deepSpeed,
                Written(source, text)
            );
        if (problems.Count == 0)
        {
            ConfigRules.Check(config, problems);
            if (source.CheckFiles)
                new InputRules(config, source.Folder, problems).Check();
        }
        problems.Throw("dotnet memopt config schema   (lists every setting)");
        return new(
            config,
            source.File,
            source.Folder,
            ConfigWriter.Indented(config),
            PinnedSettings.Hash(config),
            overrides.Made
        )
        {
            DeepSpeed = deepSpeed,
        };
    }

    /// <summary>The DeepSpeed file of a config without a refused key; null when it names none.</summary>
    private static DeepSpeedFile? DeepSpeedOf(
        RunConfig config,
        Source source,
        ConfigOverrides overrides,
        ConfigProblems problems
    )
    {
        const string setting = "distributed.deepspeed";
        if (
            config.Distributed.Deepspeed is not { } named
            || source.Recorded && overrides.Made.All(made => made.Key != setting)
        )
            return null;
        var path = Path.Combine(Path.GetDirectoryName(source.File) ?? "", named);
        if (!File.Exists(path))
        {
            problems.AddOf(setting, $"\"{named}\" is not a file in {source.Folder}", "MEMOPT0005");
            return null;
        }
        var file = DeepSpeedFile.Read(path, source.Ranks ?? config.Distributed.Gpus ?? 1);
        file.ThrowRefusals();
        return file;
    }

    /// <summary>Whether a setting is written in a text; in one that has all of them, whether it is not at its
    /// default.</summary>
    private static Func<string, bool> Written(Source source, ConfigText text)
    {
        if (!source.Whole)
            return setting => new SettingLocator(text).Find(setting.Split('.')) is not null;
        var defaults = ConfigWriter.Flat(new RunConfig());
        var own = ConfigWriter.Flat(JsonNode.Parse(text.Bytes)!);
        return setting => own.GetValueOrDefault(setting) != defaults[setting];
    }

    /// <summary>A text of settings.</summary>
    /// <param name="File">The file it is in, or would be in.</param>
    /// <param name="Text">Its bytes.</param>
    private sealed record Source(string File, byte[] Text)
    {
        /// <summary>Whether data and model must exist.</summary>
        public bool CheckFiles { get; init; } = true;

        /// <summary>Whether every setting is written, as the tool writes it.</summary>
        public bool Whole { get; init; }

        /// <summary>Whether a run recorded it.</summary>
        public bool Recorded { get; init; }

        /// <summary>The ranks that a launcher started, or null.</summary>
        public int? Ranks { get; init; }

        public string Folder => Path.GetDirectoryName(Path.GetFullPath(File))!;
    }
}
