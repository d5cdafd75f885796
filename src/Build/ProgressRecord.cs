using System.Collections.Generic;
using System.IO;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Text;

namespace Memopt.Build;

/// <summary>One line of <c>--progress json</c> on standard error: the tool writes it, the MSBuild task reads it. What
/// does not belong to an event is left out.</summary>
[DataContract]
public sealed class ProgressRecord
{
    /// <summary>Values of <see cref="Event"/>.</summary>
    public const string RunEvent = "run",
        StageEvent = "stage",
        ProgressEvent = "progress",
        StepEvent = "step",
        LedgerEvent = "ledger",
        TrialEvent = "trial",
        FinishedEvent = "finished";

    /// <summary>UTC, ISO 8601.</summary>
    [DataMember(Name = "time")]
    public string Time { get; set; } = "";

    /// <summary>run, stage, progress, step, ledger, trial or finished.</summary>
    [DataMember(Name = "event")]
    public string Event { get; set; } = "";

    /// <summary>The name of a stage, of the work counted by done and total, of a downloaded file, or of the metric in
    /// value.</summary>
    [DataMember(Name = "name", EmitDefaultValue = false)]
    public string? Name { get; set; }

    /// <summary>A line for people; no program needs to read it.</summary>
    [DataMember(Name = "text", EmitDefaultValue = false)]
    public string? Text { get; set; }

    [DataMember(Name = "runId", EmitDefaultValue = false)]
    public string? RunId { get; set; }

    /// <summary>The number of the sweep's combination that the record belongs to, from 1.</summary>
    [DataMember(Name = "trial", EmitDefaultValue = false)]
    public long? Trial { get; set; }

    [DataMember(Name = "done", EmitDefaultValue = false)]
    public long? Done { get; set; }

    [DataMember(Name = "total", EmitDefaultValue = false)]
    public long? Total { get; set; }

    /// <summary>Optimizer steps made, from 1.</summary>
    [DataMember(Name = "step", EmitDefaultValue = false)]
    public long? Step { get; set; }

    [DataMember(Name = "loss", EmitDefaultValue = false)]
    public double? Loss { get; set; }

    [DataMember(Name = "learningRate", EmitDefaultValue = false)]
    public double? LearningRate { get; set; }

    [DataMember(Name = "gradNorm", EmitDefaultValue = false)]
    public double? GradNorm { get; set; }

    [DataMember(Name = "tokensPerSecond", EmitDefaultValue = false)]
    public double? TokensPerSecond { get; set; }

    [DataMember(Name = "memoryBytes", EmitDefaultValue = false)]
    public long? MemoryBytes { get; set; }

    /// <summary>Accuracy of an evaluation, 0 to 1.</summary>
    [DataMember(Name = "accuracy", EmitDefaultValue = false)]
    public double? Accuracy { get; set; }

    /// <summary>The sweep's metric, named by name.</summary>
    [DataMember(Name = "value", EmitDefaultValue = false)]
    public double? Value { get; set; }

    /// <summary>Of finished: finished, stopped or failed. Of trial: started, finished, stopped or failed.</summary>
    [DataMember(Name = "status", EmitDefaultValue = false)]
    public string? Status { get; set; }

    /// <summary>Of finished: the result in one line for people.</summary>
    [DataMember(Name = "judged", EmitDefaultValue = false)]
    public string? Judged { get; set; }

    /// <summary>Of ledger: its rows.</summary>
    [DataMember(Name = "rows", EmitDefaultValue = false)]
    public List<ProgressRow>? Rows { get; set; }

    private static DataContractJsonSerializer Serializer() => new(typeof(ProgressRecord));

    /// <summary>The record as one line.</summary>
    public string Line()
    {
        using var bytes = new MemoryStream();
        Serializer().WriteObject(bytes, this);
        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    /// <summary>The record of a line, or null when the line is something else.</summary>
    public static ProgressRecord? Parse(string line)
    {
        if (line.Length == 0 || line[0] != '{')
            return null;
        try
        {
            using var bytes = new MemoryStream(Encoding.UTF8.GetBytes(line));
            return Serializer().ReadObject(bytes) as ProgressRecord is { Event.Length: > 0 } record ? record : null;
        }
        catch (SerializationException)
        {
            return null;
        }
    }
}
