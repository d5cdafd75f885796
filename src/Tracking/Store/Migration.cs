using System.Buffers;
using System.Text;
using LiteDB;

namespace Memopt.Tracking;

/// <summary>Brings older layouts of the database to the present one.</summary>
internal static class Migration
{
    /// <summary>From layout 0, which kept rows as JSON. What the spools have is taken from them; a run that only the
    /// database knows gets its spool back. The old file stays beside the new one. A kill on the way repeats this from
    /// the start.
    /// </summary>
    public static void FromRows(string database, Spool spool)
    {
        using (
            var old = new LiteDatabase(new ConnectionString { Filename = database, Connection = ConnectionType.Direct })
        )
        {
            foreach (
                var run in old.GetCollection("runs")
                    .FindAll()
                    .Where(run => spool.Find(run["_id"].AsString, 0) is null)
                    .ToList()
            )
            {
                var lines = new ArrayBufferWriter<byte>();
                void Line(string kind, BsonValue body)
                {
                    if (body.IsString)
                        SpoolLine.Write(lines, kind, 0, Encoding.UTF8.GetBytes(body.AsString));
                }
                Line("begin", run["start"]);
                foreach (var (collection, kind) in new[] { ("steps", "step"), ("evals", "eval") })
                {
                    foreach (
                        var row in old.GetCollection(collection)
                            .Find(Query.EQ("run", run["_id"]))
                            .OrderBy(chunk => chunk["_id"].AsObjectId)
                            .SelectMany(chunk => chunk["rows"].AsArray)
                    )
                        Line(kind, row);
                }
                foreach (var (field, kind) in new[] { ("artifacts", "artifact"), ("events", "event") })
                {
                    foreach (var item in run[field].IsArray ? run[field].AsArray : [])
                        Line(kind, item);
                }
                Line("end", run["end"]);
                Spool.Place(spool.PathOf(run["_id"].AsString, 0), stream => stream.Write(lines.WrittenSpan));
            }
        }
        File.Move(database, database + ".layout-0", overwrite: true);
        File.Delete(Path.Combine(Path.GetDirectoryName(database)!, "runs-log.db"));
    }
}
