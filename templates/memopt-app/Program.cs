using Memopt;
using Memopt.Tracking;
using Microsoft.Extensions.AI;

// Rows from code: sentences that praise or blame, made of words. Yours may come from a database or a service; they are
// read once, one by one.
string[] things =
[
    "film",
    "meal",
    "book",
    "hotel",
    "song",
    "game",
    "teacher",
    "garden",
    "speech",
    "journey",
    "house",
    "painting",
];
string[] praise = ["wonderful", "excellent", "beautiful", "brilliant", "pleasant", "perfect", "superb", "delightful"];
string[] blame = ["terrible", "awful", "ugly", "boring", "dreadful", "horrible", "poor", "disgusting"];

IEnumerable<Chat> Sentences() =>
    from thing in things
    from word in praise.Concat(blame)
    select Chat.Of(Question($"The {thing} was {word}."), praise.Contains(word) ? "praise" : "blame");

static string Question(string sentence) => $"Is this praise or blame? {sentence}";

// Every fifth sentence is kept to judge by.
var train = Sentences().Where((_, index) => index % 5 != 0);
var eval = Sentences().Where((_, index) => index % 5 == 0);

if (args is ["rows"])
{
    Directory.CreateDirectory("data");
    Chat.WriteLines("data/train.jsonl", train);
    Chat.WriteLines("data/eval.jsonl", eval);
    Console.WriteLine("Now dotnet memopt run trains the same.");
    return;
}

// Ctrl+C ends the training after a step; the next start goes on from there.
using var stop = new CancellationTokenSource();
Console.CancelKeyPress += (_, pressed) =>
{
    pressed.Cancel = true;
    stop.Cancel();
};

var result = await FineTune
    .Create("memopt.json")
    .WithData(train)
    .WithEvaluation(eval)
    .WithMetric("first_letter", (prompt, expected, answer) => answer.StartsWith(expected[0]) ? 1 : 0)
    .OnProgress((stage, text) => Console.WriteLine($"{stage.PadRight(12)} {text}"))
    .OnStep(step =>
    {
        if (step.Step % 10 == 0 || step.Step == step.Total)
            Console.WriteLine($"step {step.Step} of {step.Total}, loss {step.Loss:F3}");
    })
    .RunAsync(stop.Token);

if (result.AdapterFolder is null)
{
    Console.WriteLine($"Stopped after step {result.Steps}; dotnet run goes on.");
    return;
}
Console.WriteLine(
    $"run {result.RunId}: {(result.UpToDate ? "trained before" : "trained")}, accuracy {result.Accuracy:P0}, "
        + $"first_letter {result.Metrics["first_letter"]:F2}"
);

// The record of all runs, as dotnet memopt runs shows it.
using var store = new LiteRunStore(".memopt/store");
var best = store
    .Find(
        new RunQuery
        {
            Filter = "experiment = \"My-App\" and status = 'finished' order by metrics.eval_first_letter desc",
            Limit = 1,
        }
    )
    .Runs[0];
Console.WriteLine(
    $"best run {best.Start.Id}: first_letter {best.Eval["first_letter"]:F2}, loss {best.Eval["loss"]:F4}"
);

using IChatClient client = TextGenerator.Load(Adapters.Load(result.AdapterFolder));
Console.WriteLine($"The journey was superb: {await client.GetResponseAsync(Question("The journey was superb."))}");
