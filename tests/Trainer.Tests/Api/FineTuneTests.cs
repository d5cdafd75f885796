using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Tests;
using Microsoft.Extensions.AI;

namespace Memopt.Tests;

/// <summary>A fine-tune from code. That it equals the tool's is in Tool.Tests/ApiTests.</summary>
[Collection(Alone.Name)]
public sealed class FineTuneTests : IDisposable
{
    private readonly ApiWorkshop workshop = new();

    public void Dispose() => workshop.Dispose();

    [Fact]
    public async Task A_cancelled_training_goes_on_and_ends_with_the_same_bytes()
    {
        using var other = new ApiWorkshop();
        var whole = await other.FineTune.RunAsync();

        using var stop = new CancellationTokenSource();
        var seen = new List<int>();
        void Seen(StepInfo step)
        {
            seen.Add(step.Step);
            Assert.Equal(8, step.Total);
            if (seen.Count == 4)
                stop.Cancel();
        }
        var stopped = await workshop.FineTune.OnStep(Seen).RunAsync(stop.Token);
        Assert.Equal((RunStatus.Stopped, 4, null), (stopped.Status, stopped.Steps, stopped.AdapterFolder));
        var resumed = await workshop.FineTune.OnStep(Seen).RunAsync();
        Assert.Equal(
            (RunStatus.Finished, 8, stopped.RunId, false),
            (resumed.Status, resumed.Steps, resumed.RunId, resumed.UpToDate)
        );
        Assert.Equal(Enumerable.Range(1, 8), seen);
        Assert.Equal(ApiWorkshop.Adapter(whole), ApiWorkshop.Adapter(resumed));

        var again = await workshop.FineTune.OnStep(Seen).RunAsync();
        Assert.Equal(
            (RunStatus.Finished, 8, stopped.RunId, true),
            (again.Status, again.Steps, again.RunId, again.UpToDate)
        );
        Assert.Equal(8, seen.Count);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => workshop.FineTune.RunAsync(stop.Token));
    }

    [Fact]
    public async Task Cancelled_in_the_evaluation_it_goes_on_there()
    {
        using var stop = new CancellationTokenSource();
        var steps = 0;
        FineTune Tune() =>
            workshop.FineTune.With("train.steps", 3).WithEvaluation(ApiWorkshop.Chats("eval", 16)).OnStep(_ => steps++);
        var stopped = await Tune()
            .WithMetric("asked", (_, _, _) => 1)
            .OnStep(step =>
            {
                if (step.Step == 3)
                    stop.Cancel();
            })
            .RunAsync(stop.Token);
        Assert.Equal((RunStatus.Stopped, 3, null), (stopped.Status, stopped.Steps, stopped.AdapterFolder));
        var resumed = await Tune().RunAsync();
        Assert.Equal((RunStatus.Finished, 3, stopped.RunId, 3), (resumed.Status, resumed.Steps, resumed.RunId, steps));
        Assert.NotNull(resumed.Loss);
    }

    [Fact]
    public async Task Settings_made_in_code_train_what_those_of_a_file_train()
    {
        var made = FineTune
            .Create(
                new RunConfig
                {
                    Model = new() { Source = TestBackend.Nano },
                    Data = new() { MaxLength = 64 },
                    Adapter = new()
                    {
                        Kind = AdapterKind.Qlora,
                        Rank = 4,
                        Alpha = 8,
                    },
                    Train = new()
                    {
                        Steps = 3,
                        BatchSize = 6,
                        LearningRate = 2e-3,
                    },
                },
                Path.Combine(workshop.Folder, "made")
            )
            .WithData(ApiWorkshop.Chats("train", 40))
            .WithBackend("cpu");
        var result = await made.RunAsync();
        Assert.Equal(Path.Combine(workshop.Folder, ".memopt", "made", "adapter"), result.AdapterFolder);
        var written = await workshop
            .FineTune.With("train.steps", 3)
            .With("adapter.kind", AdapterKind.Qlora)
            .With("adapter.dropout", 0)
            .RunAsync();
        Assert.Equal(ApiWorkshop.Adapter(written), ApiWorkshop.Adapter(result));
    }

    [Fact]
    public async Task A_metric_of_ones_own_is_recorded_and_counts_what_the_accuracy_counts()
    {
        // Trained until it says one of the classes; accuracy comes from one pass over given answers, the metric from
        // answers made token by token.
        var prompts = new List<string>();
        FineTune Tune() =>
            workshop
                .FineTune.With("train.steps", 30)
                .With("adapter.dropout", 0)
                .WithEvaluation(ApiWorkshop.Chats("eval", 16))
                .WithMetric(
                    "exact",
                    (prompt, expected, answer) =>
                    {
                        prompts.Add(prompt);
                        return expected == answer ? 1 : 0;
                    }
                )
                .WithMetric("length", (_, expected, _) => expected.Length);
        var result = await Tune().RunAsync();
        Assert.InRange(result.Accuracy!.Value, 0.05, 0.95);
        Assert.Equal(result.Accuracy.Value, result.Metrics["exact"], 9);
        Assert.Equal(
            ApiWorkshop.Chats("eval", 16).Average(chat => chat.Turns[^1].Content.Length),
            result.Metrics["length"],
            9
        );
        Assert.Equal(
            ApiWorkshop
                .Chats("eval", 16)
                .Select(chat => $"<|im_start|>user\n{chat.Turns[0].Content}<|im_end|>\n<|im_start|>assistant\n"),
            prompts
        );

        using var store = workshop.Store();
        var run = store.Find(new RunQuery { Filter = "experiment = 'api' and metrics.eval_exact >= 0" }).Runs.Single();
        Assert.Equal(
            (result.RunId, result.Metrics["exact"], result.Loss!.Value),
            (run.Start.Id, run.Metrics["eval_exact"].Last, run.Metrics["eval_loss"].Last)
        );

        var again = await Tune().RunAsync();
        Assert.True(again.UpToDate);
        Assert.Equal(result.Metrics, again.Metrics);
        Assert.Equal(16, prompts.Count);
    }

    [Fact]
    public async Task An_exception_of_a_callback_ends_the_run_as_failed()
    {
        var thrown = new InvalidOperationException("enough");
        var task = workshop
            .FineTune.OnStep(step =>
            {
                if (step.Step == 2)
                    throw thrown;
            })
            .RunAsync();
        Assert.Same(thrown, await Assert.ThrowsAsync<InvalidOperationException>(() => task));
        using var store = workshop.Store();
        var run = store.Find(new RunQuery()).Runs.Single();
        Assert.Equal((RunStatus.Failed, "enough"), (run.Status, run.Reason));
        Assert.Equal(RunStatus.Finished, (await workshop.FineTune.RunAsync()).Status);
    }

    [Fact]
    public async Task A_training_that_waits_for_another_can_be_cancelled()
    {
        using var stop = new CancellationTokenSource();
        Task? second = null;
        var ended = false;
        await workshop
            .FineTune.OnStep(step =>
            {
                if (step.Step > 1)
                    return;
                second = workshop.FineTune.RunAsync(stop.Token);
                stop.Cancel();
                ended = ((IAsyncResult)second).AsyncWaitHandle.WaitOne(TimeSpan.FromMinutes(5));
            })
            .RunAsync();
        Assert.True(ended && second!.IsCanceled);
    }

    [Fact]
    public async Task A_callback_may_ask_a_generator()
    {
        using var generator = TextGenerator.Load(TestBackend.Nano);
        var answers = new List<string>();
        await workshop
            .FineTune.With("train.steps", 3)
            .OnStep(_ => answers.Add(generator.GetResponseAsync("noun?", new() { MaxOutputTokens = 8 }).Result.Text))
            .RunAsync()
            .WaitAsync(TimeSpan.FromMinutes(10));
        Assert.Equal(3, answers.Count);
        Assert.Single(answers.Distinct());
    }

    [Fact]
    public async Task What_has_to_be_fixed_is_reported()
    {
        var fault = await Assert.ThrowsAsync<UserFault>(() => workshop.FineTune.With("train.stepz", 1).RunAsync());
        Assert.Contains("train.steps", fault.Problems.Single().Message);
        Assert.Contains("train.steps", fault.ToString());
        fault = await Assert.ThrowsAsync<UserFault>(() =>
            workshop.FineTune.WithMetric("exact", (_, _, _) => 1).RunAsync()
        );
        Assert.Contains("data.eval", fault.Found);
        Assert.Throws<ArgumentException>(() => workshop.FineTune.WithMetric("loss", (_, _, _) => 1));
        fault = await Assert.ThrowsAsync<UserFault>(() =>
            FineTune.Create(Path.Combine(workshop.Folder, "other.json")).RunAsync()
        );
        Assert.Contains("other.json is missing", fault.Message);
        fault = await Assert.ThrowsAsync<UserFault>(() =>
            FineTune
                .Create(
                    new RunConfig
                    {
                        Adapter = new() { Rank = 0 },
                        Train = new() { Steps = 3 },
                    }
                )
                .WithData([])
                .RunAsync()
        );
        Assert.Equal("adapter.rank", Assert.Single(fault.Problems).Path);
        Assert.Contains("There is no adapter", Assert.Throws<UserFault>(() => Adapters.Load("nowhere")).Message);
    }

    [Fact]
    public async Task Another_config_of_a_model_is_another_model()
    {
        var model = Directory.CreateDirectory(Path.Combine(workshop.Folder, "model")).FullName;
        foreach (var file in Directory.EnumerateFiles(TestBackend.Nano))
            File.Copy(file, Path.Combine(model, Path.GetFileName(file)));
        FineTune Tune() => workshop.FineTune.With("model.source", model).With("train.steps", 1);
        Assert.False((await Tune().RunAsync()).UpToDate);
        Assert.True((await Tune().RunAsync()).UpToDate);
        var config = Path.Combine(model, "config.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"rope_theta\": 10000", "\"rope_theta\": 500"));
        Assert.False((await Tune().RunAsync()).UpToDate);
    }

    [Fact]
    public async Task Null_is_no_row()
    {
        Assert.Throws<ArgumentNullException>(() => workshop.FineTune.WithData(null!));
        Assert.Throws<ArgumentNullException>(() => workshop.FineTune.WithEvaluation(null!));
        Assert.Throws<ArgumentNullException>(() => FineTune.Create((string)null!));
        Assert.Throws<ArgumentNullException>(() => FineTune.Create(new RunConfig(), null!));
        Assert.Throws<ArgumentNullException>(() => Adapters.Load(null!));
        await Assert.ThrowsAsync<ArgumentException>(() => workshop.FineTune.WithData([null!]).RunAsync());
        await Assert.ThrowsAsync<ArgumentException>(() => workshop.FineTune.WithData([Chat.Of("a", null!)]).RunAsync());
    }

    [Fact]
    public void Rows_are_kept_by_their_content()
    {
        var first = Chat.Keep(workshop.Rows, "train", ApiWorkshop.Chats("train", 9), default);
        var written = File.GetLastWriteTimeUtc(first);
        Assert.Equal(first, Chat.Keep(workshop.Rows, "train", ApiWorkshop.Chats("train", 9), default));
        Assert.Equal(written, File.GetLastWriteTimeUtc(first));
        Assert.NotEqual(first, Chat.Keep(workshop.Rows, "train", ApiWorkshop.Chats("train", 8), default));
        Assert.Equal(2, Directory.GetFileSystemEntries(workshop.Rows).Length);

        // What another program reads of them is what was said.
        var odd = new Chat(new("system", "Be \"brief\".\n"), new("user", "Zoë & 雪 🙂 <b>"), new("assistant", ""));
        Chat.WriteLines(Path.Combine(workshop.Folder, "odd.jsonl"), [odd]);
        var turns = System.Text.Json.Nodes.JsonNode.Parse(
            File.ReadAllText(Path.Combine(workshop.Folder, "odd.jsonl"))
        )!["messages"]!.AsArray();
        Assert.Equal(odd.Turns, turns.Select(turn => new ChatTurn((string)turn!["role"]!, (string)turn["content"]!)));
        Assert.Equal(odd.Turns, Chat.From(odd.ToMessages()).Turns);
    }
}
