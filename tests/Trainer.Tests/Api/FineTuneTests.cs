using Memopt.Core;
using Memopt.Tracking;
using Memopt.Trainer.Config;
using Memopt.Trainer.Tests;
using Microsoft.Extensions.AI;

namespace Memopt.Tests;

/// <summary>A fine-tune from code. That it equals the tool's is in Tool.Tests/ApiTests.</summary>
[Collection(ExclusiveCollection.Name)]
public sealed class FineTuneTests : IDisposable
{
    private readonly NanoProject project = new();

    public void Dispose() => project.Dispose();

    [Fact]
    public async Task Training_cancelled_resumes_and_ends_with_the_same_bytes()
    {
        using var other = new NanoProject();
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
        var stopped = await project.FineTune.OnStep(Seen).RunAsync(stop.Token);
        Assert.Equal((RunStatus.Stopped, 4, null), (stopped.Status, stopped.Steps, stopped.AdapterFolder));
        var resumed = await project.FineTune.OnStep(Seen).RunAsync();
        Assert.Equal(
            (RunStatus.Finished, 8, stopped.RunId, false),
            (resumed.Status, resumed.Steps, resumed.RunId, resumed.UpToDate)
        );
        Assert.Equal(Enumerable.Range(1, 8), seen);
        Assert.Equal(NanoProject.Adapter(whole), NanoProject.Adapter(resumed));

        var again = await project.FineTune.OnStep(Seen).RunAsync();
        Assert.Equal(
            (RunStatus.Finished, 8, stopped.RunId, true),
            (again.Status, again.Steps, again.RunId, again.UpToDate)
        );
        Assert.Equal(8, seen.Count);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => project.FineTune.RunAsync(stop.Token));
    }

    [Fact]
    public async Task Training_cancelled_in_the_evaluation_resumes_there()
    {
        using var stop = new CancellationTokenSource();
        var steps = 0;
        FineTune Tune() =>
            project.FineTune.With("train.steps", 3).WithEvaluation(NanoProject.Chats("eval", 16)).OnStep(_ => steps++);
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
    public async Task Settings_from_code_train_the_same_as_those_of_a_file()
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
                Path.Combine(project.Folder, "made")
            )
            .WithData(NanoProject.Chats("train", 40))
            .WithBackend("cpu");
        var result = await made.RunAsync();
        Assert.Equal(Path.Combine(project.Folder, ".memopt", "made", "adapter"), result.AdapterFolder);
        var written = await project
            .FineTune.With("train.steps", 3)
            .With("adapter.kind", AdapterKind.Qlora)
            .With("adapter.dropout", 0)
            .RunAsync();
        Assert.Equal(NanoProject.Adapter(written), NanoProject.Adapter(result));
    }

    [Fact]
    public async Task Custom_metric_is_recorded_over_the_tokens_that_the_accuracy_counts()
    {
        // Trained until it says one of the classes; accuracy comes from one pass over given answers, the metric from
        // answers made token by token.
        var prompts = new List<string>();
        FineTune Tune() =>
            project
                .FineTune.With("train.steps", 30)
                .With("adapter.dropout", 0)
                .WithEvaluation(NanoProject.Chats("eval", 16))
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
            NanoProject.Chats("eval", 16).Average(chat => chat.Turns[^1].Content.Length),
            result.Metrics["length"],
            9
        );
        Assert.Equal(
            NanoProject
                .Chats("eval", 16)
                .Select(chat => $"<|im_start|>user\n{chat.Turns[0].Content}<|im_end|>\n<|im_start|>assistant\n"),
            prompts
        );

        using var store = project.Store();
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
    public async Task Callback_that_throws_ends_the_run_as_failed()
    {
        var thrown = new InvalidOperationException("enough");
        var task = project
            .FineTune.OnStep(step =>
            {
                if (step.Step == 2)
                    throw thrown;
            })
            .RunAsync();
        Assert.Same(thrown, await Assert.ThrowsAsync<InvalidOperationException>(() => task));
        using var store = project.Store();
        var run = store.Find(new RunQuery()).Runs.Single();
        Assert.Equal((RunStatus.Failed, "enough"), (run.Status, run.Reason));
        Assert.Equal(RunStatus.Finished, (await project.FineTune.RunAsync()).Status);
    }

    [Fact]
    public async Task Training_that_waits_for_another_can_be_cancelled()
    {
        using var stop = new CancellationTokenSource();
        Task? second = null;
        var ended = false;
        await project
            .FineTune.OnStep(step =>
            {
                if (step.Step > 1)
                    return;
                second = project.FineTune.RunAsync(stop.Token);
                stop.Cancel();
                ended = ((IAsyncResult)second).AsyncWaitHandle.WaitOne(TimeSpan.FromMinutes(5));
            })
            .RunAsync();
        Assert.True(ended && second!.IsCanceled);
    }

    [Fact]
    public async Task Callback_may_use_a_generator()
    {
        using var generator = TextGenerator.Load(TestBackend.Nano);
        var answers = new List<string>();
        await project
            .FineTune.With("train.steps", 3)
            .OnStep(_ => answers.Add(generator.GetResponseAsync("noun?", new() { MaxOutputTokens = 8 }).Result.Text))
            .RunAsync()
            .WaitAsync(TimeSpan.FromMinutes(10));
        Assert.Equal(3, answers.Count);
        Assert.Single(answers.Distinct());
    }

    [Fact]
    public async Task Fine_tune_with_a_wrong_setting_names_it()
    {
        var fault = await Assert.ThrowsAsync<UserFault>(() => project.FineTune.With("train.stepz", 1).RunAsync());
        Assert.Contains("train.steps", fault.Problems.Single().Message);
        Assert.Contains("train.steps", fault.ToString());
        fault = await Assert.ThrowsAsync<UserFault>(() =>
            project.FineTune.WithMetric("exact", (_, _, _) => 1).RunAsync()
        );
        Assert.Contains("data.eval", fault.Found);
        Assert.Throws<ArgumentException>(() => project.FineTune.WithMetric("loss", (_, _, _) => 1));
        fault = await Assert.ThrowsAsync<UserFault>(() =>
            FineTune.Create(Path.Combine(project.Folder, "other.json")).RunAsync()
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
    public async Task Training_after_a_change_of_the_models_config_is_not_up_to_date()
    {
        var model = Directory.CreateDirectory(Path.Combine(project.Folder, "model")).FullName;
        foreach (var file in Directory.EnumerateFiles(TestBackend.Nano))
            File.Copy(file, Path.Combine(model, Path.GetFileName(file)));
        FineTune Tune() => project.FineTune.With("model.source", model).With("train.steps", 1);
        Assert.False((await Tune().RunAsync()).UpToDate);
        Assert.True((await Tune().RunAsync()).UpToDate);
        var config = Path.Combine(model, "config.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"rope_theta\": 10000", "\"rope_theta\": 500"));
        Assert.False((await Tune().RunAsync()).UpToDate);
    }

    [Fact]
    public async Task Null_arguments_are_refused()
    {
        Assert.Throws<ArgumentNullException>(() => project.FineTune.WithData(null!));
        Assert.Throws<ArgumentNullException>(() => project.FineTune.WithEvaluation(null!));
        Assert.Throws<ArgumentNullException>(() => FineTune.Create((string)null!));
        Assert.Throws<ArgumentNullException>(() => FineTune.Create(new RunConfig(), null!));
        Assert.Throws<ArgumentNullException>(() => Adapters.Load(null!));
        await Assert.ThrowsAsync<ArgumentException>(() => project.FineTune.WithData([null!]).RunAsync());
        await Assert.ThrowsAsync<ArgumentException>(() => project.FineTune.WithData([Chat.Of("a", null!)]).RunAsync());
    }

    [Fact]
    public void Rows_from_code_are_stored_once_by_their_content()
    {
        var first = Chat.Keep(project.Rows, "train", NanoProject.Chats("train", 9), default);
        var written = File.GetLastWriteTimeUtc(first);
        Assert.Equal(first, Chat.Keep(project.Rows, "train", NanoProject.Chats("train", 9), default));
        Assert.Equal(written, File.GetLastWriteTimeUtc(first));
        Assert.NotEqual(first, Chat.Keep(project.Rows, "train", NanoProject.Chats("train", 8), default));
        Assert.Equal(2, Directory.GetFileSystemEntries(project.Rows).Length);

        // What another program reads of them is what was said.
        var odd = new Chat(new("system", "Be \"brief\".\n"), new("user", "Zoë & 雪 🙂 <b>"), new("assistant", ""));
        Chat.WriteLines(Path.Combine(project.Folder, "odd.jsonl"), [odd]);
        var turns = System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Path.Combine(project.Folder, "odd.jsonl")))![
            "messages"
        ]!.AsArray();
        Assert.Equal(odd.Turns, turns.Select(turn => new ChatTurn((string)turn!["role"]!, (string)turn["content"]!)));
        Assert.Equal(odd.Turns, Chat.From(odd.ToMessages()).Turns);
    }
}
