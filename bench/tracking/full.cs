// What a training meets on a full disk and in a store that cannot be written; full.sh beside it makes both.
// usage: full.sh, or: dotnet run bench/tracking/full.cs train STORE BALLAST_FILE | ask STORE | begin STORE INSTEAD
#:project ../../src/Tracking/Tracking.csproj
#:property PublishAot=false
using Memopt.Tracking;

using var store = new LiteRunStore(args[1]);
static RunStart Start(string id) =>
    new()
    {
        Id = id,
        Experiment = "full",
        Config = "{}",
    };
void Say(string text) => Console.WriteLine($"  said: {text}");
switch (args[0])
{
    case "train":
        using (var run = store.BeginBestEffort(Start("full"), 0, Say))
        {
            for (var step = 1; step <= 20_000; step++)
            {
                run.Append(new MetricRow(step, new Dictionary<string, double> { ["loss"] = 1.0 / step }));
                if (step == 15_000)
                    File.Delete(args[2]); // room again
            }
            run.End(new Outcome(RunStatus.Finished));
        }
        break;
    case "begin":
        using (var run = store.BeginBestEffort(Start("begin"), 0, Say, args[2]))
            run.Append(new MetricRow(1, new Dictionary<string, double> { ["loss"] = 1 }));
        break;
    case "ask":
        try
        {
            foreach (var run in store.Find(new RunQuery()).Runs)
                Console.WriteLine(
                    $"  {run.Start.Id} {run.Status}, step {run.Step}, {store.Points(run.Start.Id, "loss").Count} points"
                );
        }
        catch (TrackingException e)
        {
            Say(e.Message);
        }
        break;
}
