using System.Globalization;
using System.Text.Json;
using Memopt.Core;

namespace Memopt.Tracking;

/// <summary>What a query for experiments found.</summary>
/// <param name="Found">In the query's order.</param>
/// <param name="Next">Asks for the next page; null on the last.</param>
public sealed record ExperimentPage(IReadOnlyList<Experiment> Found, string? Next);

/// <summary>The experiments of a store: a small file beside the runs, replaced whole under a lock, so that processes
/// may change it at once and a kill leaves the old or the new. An experiment that runs name and the file does not is
/// entered when it is first asked for.
/// </summary>
public sealed class Experiments
{
    /// <summary>The experiment of runs that name none: <see cref="Experiment.Id"/> 0.</summary>
    public const string DefaultKey = "default";

    private static readonly JsonSerializerOptions json = new() { WriteIndented = true, NewLine = "\n" };

    private readonly string folder,
        file;
    private readonly TimeProvider clock;
    private readonly Func<IReadOnlyCollection<string>> named;

    /// <param name="folder">The store's.</param>
    /// <param name="clock">Time of changes.</param>
    /// <param name="named">The experiments that runs name.</param>
    internal Experiments(string folder, TimeProvider clock, Func<IReadOnlyCollection<string>> named) =>
        (this.folder, file, this.clock, this.named) = (folder, Path.Combine(folder, "experiments.json"), clock, named);

    /// <summary>All of them, those that runs name included, in order of their ids.</summary>
    public IReadOnlyList<Experiment> All()
    {
        var (names, known) = (named(), Read());
        return names.All(name => In(known, name) is not null)
            ? known
            : Update(all => all.AddRange(Missing(all, names)));
    }

    /// <summary>One by its id, or null.</summary>
    public Experiment? Get(string id) => Read().FirstOrDefault(experiment => experiment.Id == id);

    /// <summary>The experiment that a run with this <see cref="RunStart.Experiment"/> is in.</summary>
    public Experiment Of(string key) => In(Read(), key) ?? In(Update(all => all.AddRange(Missing(all, [key]))), key)!;

    /// <summary>Makes one; null when the name is taken.</summary>
    public Experiment? Create(string name, IReadOnlyDictionary<string, string> tags)
    {
        var names = named();
        Experiment? made = null;
        Update(all =>
        {
            all.AddRange(Missing(all, names));
            if (all.Exists(experiment => experiment.Name == name))
                return;
            made = New(all, name) with { Tags = tags };
            // A name that another one had first is what its runs still say.
            if (all.Exists(experiment => experiment.Key == made.Key))
                made = made with { Key = $"{name} ({made.Id})" };
            all.Add(made);
        });
        return made;
    }

    /// <summary>Changes one and returns it; null when another has the new name already. Throws when there is none of
    /// that id.</summary>
    public Experiment? Change(string id, Func<Experiment, Experiment> change)
    {
        Experiment? changed = null;
        Update(all =>
        {
            var place = all.FindIndex(experiment => experiment.Id == id);
            if (place < 0)
                throw new TrackingException($"There is no experiment {id}.") { Failed = false };
            var next = change(all[place]) with { Updated = clock.GetUtcNow() };
            if (!all.Exists(other => other.Id != id && other.Name == next.Name))
                all[place] = changed = next;
        });
        return changed;
    }

    /// <summary>Experiments that match, in the language of runs' filters: <c>name</c>, <c>creation_time</c>,
    /// <c>last_update_time</c>, <c>experiment_id</c> and <c>tags.…</c>. Without an order the newest come first. Throws
    /// <see cref="QueryException"/> when a text cannot be read.
    /// </summary>
    /// <param name="filter">A condition.</param>
    /// <param name="order">Keys of an order.</param>
    /// <param name="deleted">Only deleted ones, only others, or with null both.</param>
    /// <param name="limit">How many.</param>
    /// <param name="page">Where the page before ended.</param>
    public ExperimentPage Find(string? filter, IReadOnlyList<string> order, bool? deleted, int limit, string? page)
    {
        var asked = FilterParser.Parse(filter).Then(order);
        var after = page is null ? null : Filter.Place.Parse(page);
        var all = All().ToDictionary(experiment => experiment.Id);
        var found = all
            .Values.Where(experiment => deleted is null || experiment.Deleted == deleted)
            .Select(experiment => new FilterTarget(AsRun(experiment), (_, _) => null, id => id))
            .Where(asked.Matches)
            .Select(subject => asked.Of(subject))
            .Where(place => after is null || asked.Compare(place, after) > 0)
            .Order(Comparer<Filter.Place>.Create(asked.Compare))
            .Take(limit + 1)
            .ToList();
        return new(
            [.. found.Take(limit).Select(place => all[place.Id])],
            found.Count > limit && limit > 0 ? found[limit - 1].ToString() : null
        );
    }

    /// <summary>Enters experiments of another store: those that are new here, under another id or name where theirs is
    /// taken. One that is here already keeps what it has and gets the tags that it lacks.
    /// </summary>
    internal void Take(IReadOnlyList<Experiment> others) =>
        Update(all =>
        {
            foreach (var other in others)
            {
                var place = all.FindIndex(mine => mine.Key == other.Key);
                if (place < 0)
                {
                    var taken = other with
                    {
                        Id = all.Exists(mine => mine.Id == other.Id) ? New(all, other.Name).Id : other.Id,
                    };
                    all.Add(
                        all.Exists(mine => mine.Name == other.Name)
                            ? taken with
                            {
                                Name = $"{other.Name} ({taken.Id})",
                            }
                            : taken
                    );
                }
                else if (other.Tags.Any(tag => !all[place].Tags.ContainsKey(tag.Key)))
                {
                    all[place] = all[place] with
                    {
                        Tags = new Dictionary<string, string>(
                            other.Tags.Concat(all[place].Tags).GroupBy(tag => tag.Key).Select(tags => tags.Last())
                        ),
                    };
                }
            }
        });

    /// <summary>What the runs of an experiment can say in <see cref="RunStart.Experiment"/>.</summary>
    public IReadOnlyList<string> Keys(Experiment experiment) => Keys(Read(), experiment);

    /// <summary>What runs of deleted experiments say.</summary>
    internal HashSet<string> Gone()
    {
        var all = Read();
        return [.. all.Where(experiment => experiment.Deleted).SelectMany(experiment => Keys(all, experiment))];
    }

    private static IReadOnlyList<string> Keys(List<Experiment> all, Experiment experiment) =>
        In(all, experiment.Name)?.Id == experiment.Id && experiment.Name != experiment.Key
            ? [experiment.Key, experiment.Name]
            : [experiment.Key];

    /// <summary>What is wrong with the file, or null.</summary>
    internal StoreProblem? Check(bool repair)
    {
        try
        {
            Read();
            return null;
        }
        catch (TrackingException e)
        {
            if (repair)
                File.Move(file, file + ".damaged", overwrite: true);
            return new(file, $"cannot be read: {e.InnerException!.Message}", repair);
        }
    }

    // One that was renamed keeps the runs of its first name, and gets those that trainings record under the new one.
    private static Experiment? In(List<Experiment> all, string key) =>
        all.Find(experiment => experiment.Key == key) ?? all.Find(experiment => experiment.Name == key);

    private IEnumerable<Experiment> Missing(List<Experiment> all, IReadOnlyCollection<string> names)
    {
        var grown = all.ToList();
        foreach (var name in names.Where(name => In(grown, name) is null))
            grown.Add(New(grown, name));
        return grown.Skip(all.Count);
    }

    private Experiment New(List<Experiment> all, string name)
    {
        var now = clock.GetUtcNow();
        return new()
        {
            Id = (all.Max(experiment => long.Parse(experiment.Id, CultureInfo.InvariantCulture)) + 1).ToString(
                CultureInfo.InvariantCulture
            ),
            Name = name,
            Key = name,
            Created = now,
            Updated = now,
        };
    }

    /// <summary>An experiment as a filter of runs can ask it: its name as the run's, its times as start and
    /// end.</summary>
    private static RunRecord AsRun(Experiment experiment)
    {
        var run = new RunRecord { Id = experiment.Id, Number = 0 };
        run.Begin(
            JsonSerializer.Serialize(
                new RunStart
                {
                    Id = experiment.Id,
                    Experiment = experiment.Id,
                    Started = experiment.Created,
                    Config = "{}",
                    Tags = new Dictionary<string, string>(experiment.Tags) { ["mlflow.runName"] = experiment.Name },
                },
                LiteRunStore.Json
            )
        );
        run.End(
            JsonSerializer.Serialize(new Outcome(RunStatus.Finished) { Ended = experiment.Updated }, LiteRunStore.Json)
        );
        return run;
    }

    /// <summary>Those that were entered; writes nothing.</summary>
    internal List<Experiment> Read()
    {
        if (!File.Exists(file))
        {
            var since = Directory.Exists(folder) ? Directory.GetCreationTimeUtc(folder) : clock.GetUtcNow();
            return
            [
                new()
                {
                    Id = "0",
                    Name = "Default",
                    Key = DefaultKey,
                    Created = since,
                    Updated = since,
                },
            ];
        }
        try
        {
            var known = JsonSerializer.Deserialize<List<Experiment?>>(File.ReadAllBytes(file), json) ?? [];
            return
                known.Exists(one => one?.Id == "0")
                && known.TrueForAll(one =>
                    long.TryParse(one?.Id, NumberStyles.None, CultureInfo.InvariantCulture, out _)
                )
                ? [.. known.OfType<Experiment>()]
                : throw new JsonException("it does not have the default experiment, or one whose id is no number");
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new TrackingException($"The experiments in {file} cannot be read: {e.Message}", e)
            {
                Next =
                    "dotnet memopt runs doctor --repair sets the file aside: experiments are then made anew from "
                    + "the runs, without their ids and tags",
            };
        }
    }

    private List<Experiment> Update(Action<List<Experiment>> change)
    {
        try
        {
            Directory.CreateDirectory(folder);
            using var held = Hold();
            var all = Read();
            var before = all.ToList();
            change(all);
            if (!before.SequenceEqual(all))
                Spool.Place(file, stream => JsonSerializer.Serialize(stream, all, json));
            return all;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TrackingException($"The experiments in {file} cannot be written: {e.Message}", e);
        }
    }

    private FileStream Hold() => FileLock.Take(file + ".lock", TimeSpan.FromSeconds(10));
}
