using Memopt.Core;

namespace Memopt.Tool.Server.Mlflow;

/// <summary>A value of a metric.</summary>
/// <param name="Key">The metric.</param>
/// <param name="Number">The value.</param>
/// <param name="Time">Milliseconds since 1970.</param>
/// <param name="Step">The step.</param>
internal sealed record MetricValue(string Key, double Number, long Time, long Step);

/// <summary>Reads what a message says of a run: within <see cref="Limits"/>, secrets left out.</summary>
internal static class RunFields
{
    public static MetricValue Metric(MlflowRequest metric)
    {
        var (key, number, time, step) = (
            Limits.Name("metric", metric.Required("key")),
            metric.Number("value"),
            metric.Integer("timestamp"),
            metric.Integer("step") ?? 0
        );
        if (time is null)
            throw new MlflowFault(MlflowFault.Invalid, "Missing value for required parameter 'timestamp'.");
        return new(key, number, Milliseconds("timestamp", time.Value), step);
    }

    public static (string Key, string Value) Param(MlflowRequest param)
    {
        var key = Limits.Name("param", param.Required("key"));
        return (key, Secrets.Redact(key, Limits.Value("Param value", param.Text("value") ?? "", Limits.Param)));
    }

    public static (string Key, string Value) Tag(MlflowRequest tag)
    {
        var key = Limits.TagName(tag.Required("key"));
        return (key, Secrets.Redact(key, Limits.Value("Tag value", tag.Text("value") ?? "", Limits.Tag)));
    }

    public static Dictionary<string, string> Tags(IReadOnlyList<MlflowRequest> tags)
    {
        var all = new Dictionary<string, string>();
        foreach (var (key, value) in tags.Select(Tag))
            all[key] = value;
        return all;
    }

    public static string Model(MlflowRequest model) => Limits.Name("model", model.Required("model_id"));

    public static string Text(string what, string text, int most) => Secrets.Redact(Limits.Value(what, text, most));

    /// <summary>A time; null when it is left out, which 0 is, too.</summary>
    public static DateTimeOffset? Time(MlflowRequest request, string name) =>
        request.Integer(name) is { } time && time != 0
            ? DateTimeOffset.FromUnixTimeMilliseconds(Milliseconds(name, time))
            : null;

    /// <summary>A time that .NET has a date for: up to the year 9999.</summary>
    private static long Milliseconds(string name, long time) =>
        time >= 0 && time <= DateTimeOffset.MaxValue.ToUnixTimeMilliseconds()
            ? time
            : throw new MlflowFault(
                MlflowFault.Invalid,
                $"Invalid value {time} for parameter '{name}': expected milliseconds since 1970, not negative."
            );
}
