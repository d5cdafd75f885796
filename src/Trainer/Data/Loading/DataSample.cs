using Memopt.Core;
using Memopt.Text;
using Memopt.Trainer.Config;
using Memopt.Trainer.Data.Formats;
using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>The first rows of each file of one side of a config's data (training or evaluation), looked at for what is
/// wrong with them.</summary>
internal sealed class DataSample
{
    private readonly ProjectConfig config;
    private readonly ChatEncoder model;
    private readonly List<DataSource> sources;
    private readonly Remarks remarks = new();
    private readonly List<Problem> problems = [];
    private readonly List<Problem> cutOff = []; // rows of which data.maxLength leaves nothing to train on
    private int rows,
        lost,
        longest;
    private bool found;

    private DataSample(ProjectConfig config, ChatEncoder model, DataSources sources) =>
        (this.config, this.model, this.sources) = (
            config,
            model,
            sources.List.Where(source => !source.Remote).ToList()
        );

    private DataConfig Data => config.Settings.Data;

    /// <param name="config">Names the files; those of data sets from elsewhere are left out.</param>
    /// <param name="model">Whose tokens.</param>
    /// <param name="count">Rows looked at in each file.</param>
    public static IReadOnlyList<Problem> Problems(ProjectConfig config, ChatEncoder model, int count)
    {
        var all = new List<Problem>();
        foreach (var sources in new[] { config.Settings.Data.Train, config.Settings.Data.Eval }.OfType<DataSources>())
        {
            var sample = new DataSample(config, model, sources);
            var goesOn = sample.Read(count, RowProblems.Most - all.Count);
            all.AddRange(sample.problems);
            if (!goesOn)
                break;
        }
        return all;
    }

    /// <summary>Looks at the rows; false when there are so many problems that no more are looked for.</summary>
    private bool Read(int count, int most)
    {
        var files = sources
            .Select(source => SourceFiles.Of(source, config.Folder, config.Snapshots))
            .SelectMany(source => source.Each)
            .ToList();
        foreach (var file in files)
        {
            if (!Read(file, count, most))
                return false;
        }
        if (files is not [var first, ..])
            return true;
        if (!found && problems.Count == 0)
            problems.Add(RowProblems.Of("there are no rows", first.File.Path, 0));
        AddCutOff();
        problems.AddRange(
            remarks.Lines.Select(line => new Problem("data", line, first.File.Path, Code: "MEMOPT0017", Warning: true))
        );
        return true;
    }

    private bool Read(SourceFile source, int count, int most)
    {
        var reader = new RowReader(model, Data, source.Source.Columns, remarks);
        var path = source.File.Path;
        try
        {
            foreach (var chunk in RowFile.Read(source.File, 1).Take(count))
            {
                using var one = chunk;
                found |= one.Rows.Count > 0;
                Look(one, reader, path);
                if (problems.Count >= most)
                    return false;
            }
        }
        catch (UserFault fault)
        {
            // A file that cannot be read at all.
            problems.AddRange(
                fault.Problems.Count > 0
                    ? fault.Problems
                    : [RowProblems.Of($"{fault.Message} {fault.Found}; {fault.Next}", path, 0)]
            );
        }
        return true;
    }

    private void Look(Chunk chunk, RowReader reader, string path)
    {
        problems.AddRange(chunk.Faults.Select(fault => RowProblems.Of(fault.Message, path, fault.Line)));
        foreach (var text in chunk.Rows)
        {
            var line = chunk.FirstLine + text.Line;
            try
            {
                if (reader.Read(chunk[text], line).Row is { } row)
                    Count(row, path, line);
            }
            catch (Exception fault) when (fault is RowFault or PairFault)
            {
                problems.Add(RowProblems.Of(fault.Message, path, line));
            }
        }
    }

    private void Count(Row row, string path, int line)
    {
        RowLength.CheckTrained(row);
        rows++;
        if (RowLength.Cut(row, Data).Any(part => part.TargetCount > 0))
            return;
        (lost, longest) = (lost + 1, Math.Max(longest, row.Ids.Length));
        if (Data.Truncate != Truncation.Drop)
            cutOff.Add(RowProblems.Of(RowLength.NothingLeft(Data).Message, path, line));
    }

    /// <summary>Where most rows are cut off, one setting is wrong and not each row.</summary>
    private void AddCutOff()
    {
        if (lost < rows * 0.9 || lost == 0)
            problems.AddRange(cutOff);
        else
            problems.Add(
                RunConfigFile.At(
                    config,
                    "data.maxLength",
                    $"leaves nothing to train on in {lost:N0} of the {rows:N0} rows that were read: with "
                        + $"{Data.MaxLength:N0} tokens no token that carries loss is left of them; the longest has "
                        + $"{longest:N0} tokens",
                    "MEMOPT0007"
                )
            );
    }
}
