using System.Globalization;

namespace Memopt.Tracking.Tests;

/// <summary>The language of filters, case by case and against an evaluator that knows nothing of the store.</summary>
public sealed class FilterTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("memopt").FullName;
    private readonly LiteRunStore store;

    public FilterTests()
    {
        store = new LiteRunStore(folder);
        // a: finished; b: failed, NaN loss; c: being written, without metrics.
        using (
            var run = store.Begin(
                Start(
                    "a",
                    "one",
                    1,
                    """{"adapter":{"rank":16,"kind":"lora"},"train":{"seed":"07"},"data":{"train":"x.jsonl"}}""",
                    new()
                    {
                        ["team"] = "nlp",
                        ["odd key"] = "it's",
                        ["fold"] = "3",
                    }
                )
            )
        )
        {
            run.Append(new MetricRow(1, new Dictionary<string, double> { ["loss"] = 3, ["eval/acc"] = 0.5 }));
            run.Append(new MetricRow(2, new Dictionary<string, double> { ["loss"] = 1 }));
            run.Append(new MetricRow(3, new Dictionary<string, double> { ["loss"] = 2 }));
            run.End(new Outcome(RunStatus.Finished) { Ended = Day(1).AddSeconds(90) });
        }
        using (
            var run = store.Begin(
                Start("b", "one", 2, """{"adapter":{"rank":8,"kind":"qlora"}}""", new() { ["team"] = "Vision" })
            )
        )
        {
            run.Append(new MetricRow(1, new Dictionary<string, double> { ["loss"] = double.NaN }));
            run.Param("added", "1e3");
            run.Tag("team", "NLP-2");
            run.End(new Outcome(RunStatus.Failed, "no memory") { Ended = Day(2) });
        }
        store.Begin(Start("c", "two", 3, "{}", [])).Dispose();
    }

    private static DateTimeOffset Day(int day) => new(2026, 11, day, 0, 0, 0, TimeSpan.Zero);

    private static RunStart Start(
        string id,
        string experiment,
        int day,
        string config,
        Dictionary<string, string> tags
    ) =>
        new()
        {
            Id = id,
            Experiment = experiment,
            Started = Day(day),
            Config = config,
            Tags = tags,
            Hashes = new Dictionary<string, string> { ["model"] = "m-" + id, ["data.train"] = "d-" + id },
            GitCommit = id == "a" ? "c0ffee" : null,
            Parent = id == "b" ? new("a", "fork") : null,
            TotalSteps = 10,
        };

    [Theory]
    // Metrics: numbers only, last value, aggregates, at a step.
    [InlineData("metrics.loss = 2", "a")]
    [InlineData("metric.loss == 2.0", "a")]
    [InlineData("`metrics`.loss = 2", "a")]
    [InlineData("metrics.loss < 2", "")]
    [InlineData("metrics.loss <= 2", "a")]
    [InlineData("metrics.loss > 1.5e0", "a")]
    [InlineData("metrics.loss >= +2", "a")]
    [InlineData("metrics.loss != 2", "b")]
    [InlineData("metrics.loss <> 2", "b")]
    [InlineData("metrics.loss < inf", "a")]
    [InlineData("metrics.loss > -infinity", "a")]
    [InlineData("metrics.\"eval/acc\" = .5", "a")]
    [InlineData("metrics.`eval/acc` = 0.5", "a")]
    [InlineData("metrics.eval/acc = 0.5", "a")]
    [InlineData("min(metrics.loss) = 1", "a")]
    [InlineData("MAX( metrics.loss ) = 3", "a")]
    [InlineData("mean(metrics.loss) = 2", "a")]
    [InlineData("count(metrics.loss) in (1, 3)", "b a")]
    [InlineData("last(metrics.loss) = 2", "a")]
    [InlineData("metrics.loss@1 = 3", "a")]
    [InlineData("metrics.`loss`@2 = 1", "a")]
    [InlineData("metrics.loss@9 is null", "c b a")]
    [InlineData("metrics.loss is null", "c")]
    [InlineData("metrics.loss is not null", "b a")]
    [InlineData("metrics.loss is nan", "b")]
    [InlineData("metrics.loss is not nan", "a")]
    [InlineData("metrics.loss not in (2)", "b")]
    // Parameters: as text, or as a number when compared with one.
    [InlineData("params.adapter.rank = 16", "a")]
    [InlineData("params.adapter.rank = '16'", "a")]
    [InlineData("params.adapter.rank = '16.0'", "")]
    [InlineData("params.adapter.rank < 9", "b")]
    [InlineData("params.train.seed = 7", "a")]
    [InlineData("params.train.seed = '7'", "")]
    [InlineData("params.added = 1000", "b")]
    [InlineData("parameters.`adapter.kind` like '%lora'", "b a")]
    [InlineData("param.adapter.kind like 'lora'", "a")]
    [InlineData("parameter.adapter.kind like '_lora'", "b")]
    [InlineData("params.adapter.kind not like 'q%'", "a")]
    [InlineData("params.adapter.kind in ('lora', 'none')", "a")]
    [InlineData("params.adapter.rank in (8, '16')", "b a")]
    [InlineData("params.adapter.kind > 1", "")]
    [InlineData("params.nothing is null", "c b a")]
    // Tags: the last value given.
    [InlineData("tags.team = 'nlp'", "a")]
    [InlineData("tag.team = \"nlp\"", "a")]
    [InlineData("tags.team ilike 'nlp%'", "b a")]
    [InlineData("tags.team like 'nlp%'", "a")]
    [InlineData("tags.`odd key` = 'it''s'", "a")]
    [InlineData("tags.\"odd key\" = \"it's\"", "a")]
    [InlineData("tags.fold >= 3", "a")]
    [InlineData("tags.team != 'nlp'", "b")]
    // Attributes, hashes, data sets.
    [InlineData("status = 'FINISHED'", "a")]
    [InlineData("attributes.status != 'finished'", "c b")]
    [InlineData("attr.status in ('failed', 'finished')", "b a")]
    [InlineData("status = 'killed'", "c")]
    [InlineData("status like 'F%'", "b a")]
    [InlineData("status not ilike 'f%'", "c")]
    [InlineData("attributes.status LIKE 'KILL%'", "c")]
    [InlineData("status = 'scheduled'", "")]
    [InlineData("run_id = 'a'", "a")]
    [InlineData("run.run_id in ('a','c')", "c a")]
    [InlineData("experiment = 'one'", "b a")]
    [InlineData("experiment_name like 't%'", "c")]
    [InlineData("start_time > '2026-11-01'", "c b")]
    [InlineData("created >= 1761955200000", "c b a")]
    [InlineData("start_time = '2026-11-02T01:00:00+01:00'", "b")]
    [InlineData("`start_time` < '2026-11-02'", "a")]
    [InlineData("end_time is null", "c")]
    [InlineData("duration = 90", "a")]
    [InlineData("step = 3 and total_steps = 10", "a")]
    [InlineData("git_commit like 'c0%'", "a")]
    [InlineData("reason ilike '%MEMORY%'", "b")]
    [InlineData("parent = 'a'", "b")]
    [InlineData("hashes.model = 'm-a'", "a")]
    [InlineData("datasets.digest = 'd-b'", "b")]
    [InlineData("dataset.name = 'x.jsonl' and dataset.context = 'train'", "a")]
    [InlineData("dataset.name is null", "c b")]
    // Logic: or below and below not; missing is false, not turns it.
    [InlineData("run_id = 'a' or run_id = 'b' and metrics.loss = 2", "a")]
    [InlineData("(run_id = 'a' or run_id = 'b') and status = 'failed'", "b")]
    [InlineData("not metrics.loss < 5", "c b")]
    [InlineData("NOT (status = 'failed' OR NOT experiment = 'one')", "a")]
    [InlineData("not not run_id = 'a'", "a")]
    [InlineData("", "c b a")]
    [InlineData("   ", "c b a")]
    // Order: what is missing last, ties newest first.
    [InlineData("order by metrics.loss", "a b c")]
    [InlineData("order by metrics.loss desc", "a b c")]
    [InlineData("order by start_time", "a b c")]
    [InlineData("order by start_time asc", "a b c")]
    [InlineData("order by params.adapter.rank desc, run_id", "a b c")]
    [InlineData("order by experiment desc, start_time", "c a b")]
    [InlineData("experiment = 'one' ORDER BY min(metrics.loss)", "a b")]
    [InlineData("metrics.loss is not null order by run_id desc", "b a")]
    public void Filter_finds_the_expected_runs(string filter, string expected) =>
        Assert.Equal(
            expected,
            string.Join(' ', store.Find(new RunQuery { Filter = filter }).Runs.Select(run => run.Start.Id))
        );

    [Theory]
    [InlineData("metrics.loss", 12, "expected a comparison")]
    [InlineData("metrics.loss <", 14, "expected a number")]
    [InlineData("metrics.loss < 'x'", 15, "expected a number")]
    [InlineData("metrics.loss << 3", 14, "expected a number")]
    [InlineData("metrics.loss < 3x", 16, "a number goes on")]
    [InlineData("metrics.loss like 'x'", 18, "no pattern")]
    [InlineData("metrics. < 1", 8, "expected a name")]
    [InlineData("metrics.loss@ < 1", 13, "expected a step")]
    [InlineData("loss < 1", 0, "write metrics.loss")]
    [InlineData("metrik.loss < 1", 0, "nothing called metrik")]
    [InlineData("min(params.x) = 1", 4, "is of a metric")]
    [InlineData("tags.a = b", 9, "text in quotes")]
    [InlineData("tags.a = 'b", 9, "not closed")]
    [InlineData("tags.a < 'b'", 9, "expected a number")]
    [InlineData("run_id < 'b'", 7, "no order")]
    [InlineData("tags.a in 'b'", 10, "expected \"(\"")]
    [InlineData("tags.a in ('b'", 14, "expected \",\"")]
    [InlineData("tags.a is 1", 10, "\"null\"")]
    [InlineData("tags.a is nan", 13, "only a number")]
    [InlineData("tags.a not = 'b'", 11, "after \"not\"")]
    [InlineData("(run_id = 'a'", 13, "expected \")\"")]
    [InlineData("run_id = 'a' run_id = 'b'", 13, "expected \"and\"")]
    [InlineData("run_id = 'a' and", 16, "the text ends")]
    [InlineData("status = 'done'", 9, "no run is")]
    [InlineData("start_time > 'soon'", 13, "no date")]
    [InlineData("order metrics.loss", 6, "\"by\"")]
    [InlineData("order by metrics.loss down", 22, "expected \"and\"")]
    public void Filter_that_is_wrong_is_refused_at_its_position(string filter, int position, string problem)
    {
        var wrong = Assert.Throws<QueryException>(() => store.Find(new RunQuery { Filter = filter }));
        Assert.Equal(position, wrong.Position);
        Assert.Contains(problem, wrong.Message);
        Assert.Contains($"Character {position + 1} ", wrong.Message);
    }

    [Theory]
    [InlineData("(")]
    [InlineData("not ")]
    public void Filter_nested_too_deep_is_refused_without_a_stack_overflow(string deeper)
    {
        Assert.Contains(
            "more than 100 deep",
            Assert
                .Throws<QueryException>(() =>
                    store.Find(new RunQuery { Filter = string.Concat(Enumerable.Repeat(deeper, 50_000)) })
                )
                .Message
        );
        Assert.Single(
            store.Find(new RunQuery { Filter = new string('(', 100) + "run_id = 'a'" + new string(')', 100) }).Runs
        );
    }

    [Fact]
    public void Filter_that_is_too_long_is_refused()
    {
        Assert.Contains(
            "250,000 characters at most",
            Assert.Throws<QueryException>(() => store.Find(new RunQuery { Filter = new string(' ', 250_001) })).Message
        );
        Assert.Contains(
            "1,000 characters at most",
            Assert
                .Throws<QueryException>(() =>
                    store.Find(new RunQuery { Filter = $"tags.team like '{new string('%', 1_001)}'" })
                )
                .Message
        );
    }

    [Theory]
    [InlineData("metrics.loss > 1 or ", "metrics.loss > 2")]
    [InlineData("params.`adapter.rank` in (1, 2) or ", "run_id = 'a'")]
    [InlineData("tags.team like 'n%' and not (tags.team = 'x') or ", "run_id = 'a'")]
    [InlineData("run_id in ('x', 'y') and start_time < '2026-01-01' or ", "run_id = 'a'")]
    public void Filter_is_parsed_in_work_linear_in_its_length(string again, string end)
    {
        Read(10);
        var (one, eight) = (Read(500), Read(4_000));
        Assert.InRange(eight, 0, 12 * one); // to copy the rest of the text at each place would be 64 times as much

        long Read(int times)
        {
            var filter = string.Concat(Enumerable.Repeat(again, times)) + end;
            var before = GC.GetAllocatedBytesForCurrentThread();
            FilterParser.Parse(filter);
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
    }

    [Fact]
    public void Query_cancelled_ends_and_leaves_the_database_intact()
    {
        store.Find(new RunQuery());
        using var stop = new CancellationTokenSource();
        stop.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => FilterParser.Parse("run_id = 'a'", stop.Token));
        Assert.ThrowsAny<OperationCanceledException>(() =>
            store.Find(new RunQuery { Filter = "run_id = 'a'", Stop = stop.Token })
        );
        Assert.Equal(3, store.Find(new RunQuery()).Runs.Count);
        Assert.Empty(Directory.EnumerateFiles(folder, "runs.db.broken-*"));
    }

    [Fact]
    public void Like_pattern_matches_as_the_equivalent_regular_expression()
    {
        // The reference is .NET's regular expressions.
        var random = new Random(11);
        string Some(string letters, int most) =>
            string.Concat(Enumerable.Range(0, random.Next(most)).Select(_ => letters[random.Next(letters.Length)]));
        for (var i = 0; i < 300; i++)
        {
            var (text, like, insensitive) = (Some("abA.\n", 7), Some("abA.%_%", 6), i % 2 == 0);
            var meant = System.Text.RegularExpressions.Regex.Escape(like).Replace("%", ".*").Replace("_", ".");
            var options =
                System.Text.RegularExpressions.RegexOptions.Singleline
                | (insensitive ? System.Text.RegularExpressions.RegexOptions.IgnoreCase : 0);
            var filter = FilterParser.Parse($"tags.t {(insensitive ? "ilike" : "like")} '{like}'");
            var record = new RunRecord { Id = "x", Number = 1 };
            record.Set(tag: true, "t", text);
            Assert.True(
                System.Text.RegularExpressions.Regex.IsMatch(text, $"^(?:{meant})\\z", options)
                    == filter.Matches(new(record, (_, _) => null, name => name)),
                $"\"{text}\" like \"{like}\""
            );
        }
    }

    [Fact]
    public void Filter_with_an_unknown_name_is_answered_with_similar_names()
    {
        IEnumerable<string> Told(string filter) =>
            store
                .Find(new RunQuery { Filter = filter })
                .Unknown.Select(unknown => $"{unknown.Name}: {string.Join(", ", unknown.Near)}");
        Assert.Equal(["metrics.los: metrics.loss"], Told("metrics.los < 1"));
        Assert.Equal(
            ["params.adapter.rnk: params.adapter.rank, params.adapter.kind"],
            Told("metrics.loss > 0 and params.adapter.rnk = 16")
        );
        Assert.Equal(["tags.odd kye: tags.`odd key`"], Told("tags.`odd kye` = 'x'"));
        Assert.Equal(["metrics.xyz: "], Told("order by metrics.xyz"));
        Assert.Empty(Told("metrics.loss < 0"));
        Assert.Empty(Told("metrics.los < 1 or run_id = 'a'"));
        Assert.Empty(Told("order by metrics.loss"));
    }

    [Fact]
    public void Columns_of_a_query_may_be_any_name_of_a_filter()
    {
        var page = store.Find(
            new RunQuery
            {
                Filter = "run_id = 'a'",
                Columns =
                [
                    "run_id",
                    "metrics.loss",
                    "min(metrics.loss)",
                    "metrics.loss@1",
                    "params.adapter.rank",
                    "start_time",
                    "tags.none",
                    "dataset.name",
                ],
            }
        );
        Assert.Equal(["a", 2.0, 1.0, 3.0, "16", Day(1), null, "x.jsonl"], page.Values[0]);
        Assert.Throws<QueryException>(() => store.Find(new RunQuery { Columns = ["run_id, status"] }));
    }

    [Fact]
    public void Run_ids_that_look_like_numbers_are_ordered_as_text()
    {
        string[] ids = ["1e5", "20", "3e", "3e9"];
        foreach (var id in ids.Reverse())
            store.Begin(Start(id, "ids", 4, "{}", [])).Dispose();
        var found = store.Find(new RunQuery { Filter = "experiment = 'ids' order by run_id", Limit = 2 });
        Assert.Equal(ids[..2], found.Runs.Select(run => run.Start.Id));
        Assert.Equal(
            ids[2..],
            store
                .Find(new RunQuery { Filter = "experiment = 'ids' order by run_id", Page = found.Next })
                .Runs.Select(run => run.Start.Id)
        );
        Assert.Equal(
            ids.Reverse(),
            store
                .Find(new RunQuery { Filter = "experiment = 'ids' order by attributes.run_id desc" })
                .Runs.Select(run => run.Start.Id)
        );
    }

    [Theory]
    [InlineData("")]
    [InlineData("order by run_id desc")]
    public void Query_with_the_greatest_limit_returns_every_run(string filter) =>
        Assert.Equal(3, store.Find(new RunQuery { Filter = filter, Limit = int.MaxValue }).Runs.Count);

    [Fact]
    public void Pages_read_while_runs_begin_neither_repeat_nor_skip_runs()
    {
        foreach (var filter in new[] { "", "order by metrics.loss, run_id desc", "order by tags.team" })
        {
            var all = store.Find(new RunQuery { Filter = filter }).Runs.Select(run => run.Start.Id).ToList();
            var (seen, page) = (new List<string>(), (string?)null);
            do
            {
                var found = store.Find(
                    new RunQuery
                    {
                        Filter = filter,
                        Limit = 1,
                        Page = page,
                    }
                );
                seen.AddRange(found.Runs.Select(run => run.Start.Id));
                page = found.Next;
                if (seen.Count == 1)
                    store.Begin(Start("new" + all.Count, "zzz", 30, "{}", [])).Dispose();
            } while (page is not null);
            Assert.Equal(all, seen.Where(all.Contains));
            Assert.Equal(seen.Count, seen.Distinct().Count());
        }
        Assert.Throws<QueryException>(() => store.Find(new RunQuery { Page = "nonsense" }));
    }

    [Fact]
    public void Filter_drawn_at_random_finds_what_a_naive_evaluator_finds()
    {
        var random = new Random(20261125);
        for (var i = 0; i < 60; i++)
        {
            using var run = store.Begin(
                Start(
                    $"p{i}",
                    random.Next(2) == 0 ? "one" : "two",
                    random.Next(1, 28),
                    $$"""{"x":{{random.Next(3)}},"y":"{{"abc"[random.Next(3)]}}b"}""",
                    random.Next(2) == 0 ? [] : new() { ["t"] = "ab%_"[random.Next(4)].ToString() }
                )
            );
            for (var step = 0; step < random.Next(4); step++)
                run.Append(
                    new MetricRow(
                        step,
                        new Dictionary<string, double>
                        {
                            [random.Next(2) == 0 ? "m" : "n"] =
                                random.Next(6) == 0 ? double.NaN : random.Next(-2, 3) / 2.0,
                        }
                    )
                );
            if (random.Next(3) > 0)
                run.End(new Outcome((RunStatus)random.Next(1, 4)));
        }
        var naive = store
            .Find(new RunQuery { Limit = 1000 })
            .Runs.Select(run => new RunWithPoints(
                run,
                run.Metrics.Keys.ToDictionary(name => name, name => store.Points(run.Start.Id, name))
            ))
            .ToList();
        var (some, most) = (0, 0);
        for (var i = 0; i < 1500; i++)
        {
            var (text, matches) = Any(random, 3);
            var expected = naive.Where(matches).Select(run => run.Run.Start.Id).Order(StringComparer.Ordinal).ToList();
            var found = store
                .Find(new RunQuery { Filter = text, Limit = 1000 })
                .Runs.Select(run => run.Start.Id)
                .Order(StringComparer.Ordinal)
                .ToList();
            Assert.True(
                expected.SequenceEqual(found),
                $"{text}\nexpected {string.Join(' ', expected)}\nfound    {string.Join(' ', found)}"
            );
            some += expected.Count > 0 ? 1 : 0;
            most += expected.Count < naive.Count ? 1 : 0;
        }
        Assert.True(some > 300 && most > 300, "the filters are too dull to test anything");
    }

    /// <summary>A run with all its points: what the evaluator looks at.</summary>
    private sealed record RunWithPoints(Run Run, Dictionary<string, IReadOnlyList<Point>> Curves)
    {
        public double? Number(string name, string how)
        {
            if (!Curves.TryGetValue(name, out var curve))
                return null;
            var numbers = curve.Select(point => point.Value).Where(value => !double.IsNaN(value)).ToList();
            return how switch
            {
                "min" => numbers.Count == 0 ? double.NaN : numbers.Min(),
                "max" => numbers.Count == 0 ? double.NaN : numbers.Max(),
                "mean" => numbers.Count == 0 ? double.NaN : numbers.Sum() / numbers.Count,
                "count" => curve.Count,
                "@1" => curve.Where(point => point.Step == 1).Select(point => (double?)point.Value).LastOrDefault(),
                _ => curve[^1].Value,
            };
        }
    }

    private static (string Text, Func<RunWithPoints, bool> Matches) Any(Random random, int depth)
    {
        var kind = depth == 0 ? 3 : random.Next(6);
        if (kind == 0)
        {
            var (text, matches) = Any(random, depth - 1);
            return ($"not ({text})", run => !matches(run));
        }
        if (kind is 1 or 2)
        {
            var (a, b) = (Any(random, depth - 1), Any(random, depth - 1));
            return kind == 1
                ? ($"({a.Text}) and ({b.Text})", run => a.Matches(run) && b.Matches(run))
                : ($"({a.Text} or {b.Text})", run => a.Matches(run) || b.Matches(run));
        }
        return random.Next(3) switch
        {
            0 => Number(random),
            1 => Text(random),
            _ => Loose(random),
        };
    }

    private static (string, Func<RunWithPoints, bool>) Number(Random random)
    {
        var name = random.Next(3) switch
        {
            0 => "m",
            1 => "n",
            _ => "none",
        };
        var how = new[] { "", "min", "max", "mean", "count", "@1", "last" }[random.Next(7)];
        var operand = how switch
        {
            "" => $"metrics.{name}",
            "@1" => $"metrics.`{name}`@1",
            _ => $"{how}(metrics.{name})",
        };
        if (random.Next(6) == 0)
        {
            return random.Next(2) == 0
                ? ($"{operand} is null", run => run.Number(name, how) is null)
                : ($"{operand} is not nan", run => run.Number(name, how) is { } value && !double.IsNaN(value));
        }
        var limit = random.Next(-2, 3) / 2.0;
        var sign = new[] { "=", "!=", "<", "<=", ">", ">=" }[random.Next(6)];
        return (
            $"{operand} {sign} {limit.ToString(CultureInfo.InvariantCulture)}",
            run =>
                run.Number(name, how) is { } value
                && sign switch
                {
                    "=" => value == limit,
                    "!=" => value != limit,
                    "<" => value < limit,
                    "<=" => value <= limit,
                    ">" => value > limit,
                    _ => value >= limit,
                }
        );
    }

    private static (string, Func<RunWithPoints, bool>) Text(Random random)
    {
        var (operand, read) = random.Next(4) switch
        {
            0 => ("tags.t", (Func<RunWithPoints, string?>)(run => run.Run.Tags.GetValueOrDefault("t"))),
            1 => ("params.y", run => run.Run.Params.GetValueOrDefault("y")),
            2 => ("experiment", run => run.Run.Start.Experiment),
            _ => ("status", run => run.Run.Status.ToString().ToLowerInvariant()),
        };
        var values = operand switch
        {
            "experiment" => new[] { "one", "two" },
            "status" => ["finished", "stopped", "failed", "interrupted"],
            "params.y" => ["ab", "bb", "zz"],
            _ => ["a", "b", "%", "_"],
        };
        var (one, other) = (values[random.Next(values.Length)], values[random.Next(values.Length)]);
        return random.Next(5) switch
        {
            0 => ($"{operand} = '{one}'", run => read(run) == one),
            1 => ($"{operand} != '{one}'", run => read(run) is { } value && value != one),
            2 => (
                $"{operand} in ('{one}', '{other}')",
                run => read(run) is { } value && (value == one || value == other)
            ),
            3 => ($"{operand} not in ('{one}')", run => read(run) is { } value && value != one),
            // % and _ in a pattern stand for any; read this way a value of one character matches either.
            _ => ($"{operand} like '%b'", run => read(run) is { } value && value.EndsWith('b')),
        };
    }

    private static (string, Func<RunWithPoints, bool>) Loose(Random random)
    {
        var limit = random.Next(3);
        return random.Next(3) switch
        {
            0 => ($"params.x = {limit}", run => run.Run.Params.GetValueOrDefault("x") == limit.ToString()),
            1 => (
                $"params.x > {limit}",
                run => run.Run.Params.TryGetValue("x", out var value) && int.Parse(value) > limit
            ),
            _ => ($"params.x is not null", run => run.Run.Params.ContainsKey("x")),
        };
    }

    public void Dispose()
    {
        store.Dispose();
        Directory.Delete(folder, recursive: true);
    }
}
