using System.Text;

namespace Memopt.Fuzz;

/// <summary>One reader of strangers' files.</summary>
/// <param name="Name">What it is called by.</param>
/// <param name="Make">An input, from a source of randomness and the seeds.</param>
/// <param name="Read">Reads an input, with a folder that it may write to; what is to outlast the case goes beside it,
/// to "own".</param>
/// <param name="More">Seeds besides those in the folder of its name: files of the repository.</param>
internal sealed record Target(
    string Name,
    Func<Random, IReadOnlyList<byte[]>, byte[]> Make,
    Action<byte[], string> Read,
    params string[] More
)
{
    private readonly Lazy<IReadOnlyList<byte[]>> seeds = new(() =>
        Found(Name, More) is { Count: > 0 } found
            ? found
            :
            [
                [],
            ]
    );

    /// <summary>The input of a case: each seed as it is, then what is made of them.</summary>
    public byte[] Input(int seed, int number) =>
        number < seeds.Value.Count
            ? seeds.Value[number]
            : Make(new Random(Mixed($"{Name} {seed} {number}")), seeds.Value);

    private static List<byte[]> Found(string name, string[] more)
    {
        var folder = Path.Combine(Targets.Seeds, name);
        IEnumerable<string> own = Directory.Exists(folder)
            ? Directory.GetFiles(folder).Order(StringComparer.Ordinal)
            : [];
        return [.. more.Select(file => Path.Combine(Targets.Repository, file)).Concat(own).Select(File.ReadAllBytes)];
    }

    /// <summary>FNV-1a: the same in every process.</summary>
    private static int Mixed(string text) =>
        (int)Encoding.UTF8.GetBytes(text).Aggregate(2166136261u, (hash, unit) => unchecked((hash ^ unit) * 16777619u));
}
