using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>An alias was set, moved or removed. It names content and not a number, since numbers of two machines may
/// meet.</summary>
/// <param name="Time">When.</param>
/// <param name="Alias">Which.</param>
/// <param name="Hash">The version's content; null when the alias was removed.</param>
/// <param name="Run">The version's run.</param>
/// <param name="Host">The machine on which it was done.</param>
public sealed record AliasChange(DateTimeOffset Time, string Alias, string? Hash, string? Run, string Host);

/// <summary>Adapters by name: name → numbered versions → content and run, with the aliases <c>latest</c> and
/// <c>best</c>, which are set by themselves, and any others, which users set. A name is one small file beside the local
/// artifacts, replaced whole under a lock; any number of processes may register at once. With a storage account it is
/// there too, as registry/NAME.json, written only while nobody else has written: two machines that register at once
/// find both versions there.
/// </summary>
/// <param name="folder">The folder of the local artifacts.</param>
/// <param name="account">The storage account that it is shared through, or null.</param>
/// <param name="clock">Time of changes; the system's when null.</param>
public sealed partial class AdapterRegistry(string folder, BlobArtifacts? account = null, TimeProvider? clock = null)
{
    private const int Patience = 60_000,
        Tries = 50;

    private static readonly JsonSerializerOptions json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        NewLine = "\n",
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
    };

    private readonly TimeProvider clock = clock ?? TimeProvider.System;

    private string Registry => Path.Combine(folder, "registry");

    /// <summary>A text as a name: what cannot be in one becomes a dash.</summary>
    public static string NameOf(string text) =>
        Unfit().Replace(text, "-").TrimStart('.', '-') is { Length: > 0 } name ? name : "adapter";

    /// <summary>Whether a text says what is best: <c>min</c> or <c>max</c> of a metric.</summary>
    public static bool IsRule(string text) => RuleForm().IsMatch(text);

    /// <summary>Whether a text may mean a registered adapter: NAME, NAME@alias or NAME@number.</summary>
    public static bool IsReference(string text) => Reference().IsMatch(text);

    /// <summary>Names known here that have versions.</summary>
    public IReadOnlyList<RegisteredAdapter> List() =>
        Guard(() =>
            Names()
                .Order(StringComparer.Ordinal)
                .Select(Read)
                .OfType<RegisteredAdapter>()
                .Where(adapter => adapter.Versions.Count > 0)
                .ToList()
        );

    /// <summary>What is known here under a name; null when there is no version.</summary>
    public RegisteredAdapter? Find(string name) =>
        Guard(() => Name().IsMatch(name) && Read(name) is { Versions.Count: > 0 } found ? found : null);

    /// <summary>The version that NAME (its latest), NAME@alias or NAME@number means, by what is known here. Throws when
    /// there is none.</summary>
    public (string Name, AdapterVersion Version) Resolve(string reference)
    {
        var match = Reference().Match(reference);
        var (name, which) = (
            match.Groups["name"].Value,
            match.Groups["which"] is { Success: true, Value: var written } ? written : RegisteredAdapter.Latest
        );
        if (!match.Success || Find(name) is not { } adapter)
            throw new TrackingException($"There is no adapter \"{reference}\": neither a folder nor a registered name.")
            {
                Failed = false,
                Next = "dotnet memopt adapters ls",
            };
        var number = int.TryParse(which, NumberStyles.None, CultureInfo.InvariantCulture, out var asked)
            ? asked
            : adapter.Aliases.GetValueOrDefault(which);
        if (adapter.Versions.FirstOrDefault(version => version.Number == number) is { } version)
            return (name, version);
        var (numbers, aliases) = (
            string.Join(", ", adapter.Versions.Select(version => version.Number)),
            string.Join(", ", adapter.Aliases.Keys)
        );
        throw new TrackingException(
            $"{name} has no version \"{which}\": there {(adapter.Versions.Count == 1 ? "is" : "are")} {numbers}, "
                + $"and {aliases}."
        )
        {
            Failed = false,
            Next = $"dotnet memopt adapters show {name}",
        };
    }

    /// <summary>Registers content as a name's next version, here. The same content of the same run is the same version;
    /// one that was removed comes back only when that is asked for.</summary>
    /// <param name="name">The name.</param>
    /// <param name="link">The artifact.</param>
    /// <param name="run">The run that made it, or null.</param>
    /// <param name="best">What tells the best version.</param>
    /// <param name="again">Whether one that was removed is registered again.</param>
    public AdapterVersion? Register(string name, ArtifactLink link, Run? run, string best, bool again = false)
    {
        RegisteredAdapter.Rule(best);
        var metrics = run?.Metrics.ToDictionary(metric => metric.Key, metric => metric.Value.Last) ?? [];
        var now = clock.GetUtcNow();
        return Change(
            name,
            adapter =>
            {
                var known = adapter.All.FirstOrDefault(version => version.Key == (link.Hash, run?.Start.Id));
                if (known is not null && (known.Removed is null || !again))
                    return adapter;
                var version = new AdapterVersion(
                    known?.Number ?? adapter.All.Select(other => other.Number).DefaultIfEmpty().Max() + 1,
                    link.Hash,
                    link.Bytes,
                    run?.Start.Id,
                    now,
                    metrics,
                    best,
                    Data: run?.Start.Hashes.GetValueOrDefault("data.eval")
                );
                return adapter with
                {
                    All =
                    [
                        .. adapter
                            .All.Where(other => other.Number != version.Number)
                            .Append(version)
                            .OrderBy(other => other.Number),
                    ],
                };
            }
        )
            .Versions.FirstOrDefault(version => version.Key == (link.Hash, run?.Start.Id));
    }

    /// <summary>Lets an alias mean a version, or nothing with null. What it meant before stays in the
    /// history.</summary>
    public void Alias(string name, string alias, int? number)
    {
        if (alias is RegisteredAdapter.Latest or RegisteredAdapter.Best)
            throw new TrackingException($"\"{alias}\" is set by itself.")
            {
                Failed = false,
                Next = "choose another alias, such as production",
            };
        if (!Name().IsMatch(alias) || alias.All(char.IsAsciiDigit))
            throw new TrackingException($"\"{alias}\" cannot be an alias: letters, digits, . _ and -, not digits only.")
            {
                Failed = false,
                Next = "choose another alias, such as production",
            };
        var now = clock.GetUtcNow();
        Change(
            name,
            adapter =>
            {
                var version = number is null ? null : Need(adapter, number.Value);
                if (version is null && !adapter.Aliases.ContainsKey(alias))
                    throw new TrackingException($"{name} has no alias \"{alias}\".")
                    {
                        Failed = false,
                        Next = $"dotnet memopt adapters show {name}",
                    };
                return adapter with
                {
                    History =
                    [
                        .. adapter.History,
                        new(now, alias, version?.Hash, version?.Run, Environment.MachineName),
                    ],
                };
            }
        );
    }

    /// <summary>Takes one version, or with null all, off the registry. Their content stays.</summary>
    public void Remove(string name, int? number)
    {
        var now = clock.GetUtcNow();
        Change(
            name,
            adapter =>
            {
                if (number is { } one)
                    Need(adapter, one);
                return adapter with
                {
                    All =
                    [
                        .. adapter.All.Select(version =>
                            version.Removed is null && (number is null || version.Number == number)
                                ? version with
                                {
                                    Removed = now,
                                }
                                : version
                        ),
                    ],
                };
            }
        );
    }

    /// <summary>Makes this machine and the storage account know the same of a name, or of all names of either; nothing
    /// without an account. Throws when the account cannot be reached.</summary>
    public void Sync(string? name = null)
    {
        if (account is null)
            return;
        var all = name is not null
            ? [name]
            : Guard(Names)
                .Union(
                    account
                        .Texts("registry/")
                        .Where(text => text.EndsWith(".json", StringComparison.Ordinal))
                        .Select(text => text[..^5])
                        .Where(text => Name().IsMatch(text))
                )
                .ToList();
        foreach (var one in all)
            Meet(account, one);
    }

    private void Meet(BlobArtifacts account, string name)
    {
        for (var tries = 0; tries < Tries; tries++)
        {
            var (content, tag) = account.ReadText($"registry/{name}.json");
            var theirs = content is null ? null : Parse(content, $"{account.Place}, registry/{name}.json");
            // Theirs first: numbers in the account are final.
            var both = theirs is null ? Read(name) : Change(name, mine => theirs.With(mine));
            if (both is null)
                return;
            var bytes = JsonSerializer.SerializeToUtf8Bytes(both, json);
            if (
                content is not null && bytes.AsSpan().SequenceEqual(content)
                || account.WriteText($"registry/{name}.json", bytes, tag)
            )
                return;
            Thread.Sleep(Random.Shared.Next(10, 50 * (tries + 1))); // somebody else was first
        }
        throw new TrackingException($"{name} is being changed in {account.Place} by others all the time.")
        {
            Next = "try again: dotnet memopt artifacts sync",
            IsTransient = true,
        };
    }

    private static AdapterVersion Need(RegisteredAdapter adapter, int number) =>
        adapter.Versions.FirstOrDefault(version => version.Number == number)
        ?? throw new TrackingException($"{adapter.Name} has no version {number}.")
        {
            Failed = false,
            Next = $"dotnet memopt adapters show {adapter.Name}",
        };

    private List<string> Names() =>
        Directory.Exists(Registry)
            ? [.. Directory.EnumerateFiles(Registry, "*.json").Select(file => Path.GetFileNameWithoutExtension(file))]
            : [];

    private string FileOf(string name) => Path.Combine(Registry, name + ".json");

    private RegisteredAdapter? Read(string name) =>
        File.Exists(FileOf(name)) ? Parse(File.ReadAllBytes(FileOf(name)), FileOf(name)) : null;

    private static RegisteredAdapter Parse(byte[] content, string where)
    {
        try
        {
            return
                JsonSerializer.Deserialize<RegisteredAdapter>(content, json)
                    is { Name: not null, All: not null, History: not null } read
                && read.All.All(version => version is { Hash: not null, Best: not null, Metrics: not null })
                && read.History.All(change => change?.Alias is not null)
                ? read
                : throw new JsonException("a part of it is missing");
        }
        catch (JsonException e)
        {
            throw new TrackingException($"The registry's file {where} cannot be read: {e.Message}", e)
            {
                Next = "move it away; its versions can be registered again: dotnet memopt adapters register",
            };
        }
    }

    /// <summary>Reads, changes and replaces a name's file while no other process does.</summary>
    private RegisteredAdapter Change(string name, Func<RegisteredAdapter, RegisteredAdapter> change) =>
        Guard(() =>
        {
            if (!Name().IsMatch(name))
                throw new TrackingException($"\"{name}\" cannot be an adapter's name: letters, digits, . _ and -.")
                {
                    Failed = false,
                    Next = "choose another name",
                };
            Directory.CreateDirectory(Registry);
            using var alone = FileLock.Take(
                Path.Combine(Registry, name + ".lock"),
                TimeSpan.FromMilliseconds(Patience)
            );
            var before = Read(name);
            var after = change(before ?? new(name, [], []));
            if (after != before && after.All.Count > 0)
                Spool.Place(FileOf(name), stream => JsonSerializer.Serialize(stream, after, json));
            return after;
        });

    private T Guard<T>(Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TrackingException($"The registry of adapters in {Registry} cannot be used: {e.Message}", e);
        }
    }

    [GeneratedRegex(@"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
    private static partial Regex Name();

    [GeneratedRegex(
        @"^(?<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})(@(?<which>[A-Za-z0-9_][A-Za-z0-9._-]*))?$",
        RegexOptions.ExplicitCapture
    )]
    private static partial Regex Reference();

    [GeneratedRegex(@"[^A-Za-z0-9._-]")]
    private static partial Regex Unfit();

    [GeneratedRegex(@"^(?<which>min|max)\((?<metric>[^()\s]+)\)$", RegexOptions.ExplicitCapture)]
    internal static partial Regex RuleForm();
}
