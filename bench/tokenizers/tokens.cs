// Encoding speed of a tokenizer on one core, ours; tokens.mjs beside it measures the references in the same way.
// usage: dotnet run -c Release bench/tokenizers/tokens.cs MODEL_FOLDER TEXT_FILE
#:project ../../src/Text/Text.csproj
using System.Diagnostics;
using Memopt.Text;

var watch = Stopwatch.StartNew();
var tokenizer = Tokenizer.Load(args[0]);
Console.WriteLine($"load        {watch.ElapsedMilliseconds, 6} ms");
var text = File.ReadAllText(args[1]);
var bytes = System.Text.Encoding.UTF8.GetByteCount(text);
var documents = Documents(text).ToList();

// The first pass meets every word for the first time, and the runtime has compiled nothing yet.
foreach (var pass in (string[])["first", "second", "third"])
{
    watch.Restart();
    var tokens = documents.Sum(document => (long)tokenizer.Encode(document).Length);
    Console.WriteLine(
        $"{pass, -11} {bytes / 1e6 / watch.Elapsed.TotalSeconds, 6:F1} MB/s  ({tokens} tokens of {bytes / 1e6:F1} MB)"
    );
}
foreach (var length in (int[])[50_000, 100_000, 200_000])
{
    var word = new string('a', length);
    watch.Restart();
    tokenizer.Encode(word);
    Console.WriteLine($"'a' x {length, -7} {watch.ElapsedMilliseconds, 4} ms");
}

// Documents of some 4 KB, as rows of a data set are.
static IEnumerable<string> Documents(string text)
{
    for (int start = 0, end; start < text.Length; start = end)
    {
        end = start + 4000 >= text.Length ? text.Length : text.IndexOf('\n', start + 4000) + 1;
        if (end == 0)
            end = text.Length;
        yield return text[start..end];
    }
}
