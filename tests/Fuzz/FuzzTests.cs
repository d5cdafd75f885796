namespace Memopt.Fuzz;

/// <summary>A few cases of every reader, the kept inputs among them.</summary>
public sealed class FuzzTests
{
    private const int Seed = 16,
        Cases = 40;

    public static TheoryData<string> Names => new(Targets.All.Select(target => target.Name));

    [Theory]
    [MemberData(nameof(Names))]
    public void Reader_of_mutated_input_accepts_or_refuses_it(string name)
    {
        var (told, folder) = (new List<string>(), Directory.CreateTempSubdirectory("memopt-fuzz"));
        var failed = new ChildMonitor(folder.FullName, Seed, told.Add).Cases(
            Targets.All.Single(target => target.Name == name),
            0,
            Cases
        );
        Assert.True(failed == 0, string.Join('\n', told) + $"\nkept in {folder.FullName}");
        folder.Delete(recursive: true);
    }
}
