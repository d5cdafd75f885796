using System.CommandLine;
using Memopt.Core;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Trainer.Models;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Commands;

/// <summary><c>infer</c>: answers a prompt.</summary>
internal sealed class InferCommand
{
    private readonly ModelOptions model = new();
    private readonly Argument<string?> prompt = new("prompt")
    {
        Description = "The user's turn; the default is standard input.",
        Arity = ArgumentArity.ZeroOrOne,
    };
    private readonly Option<bool> raw = new("--raw") { Description = "Continue the text without the chat template." };
    private readonly Option<string?> ids = new("--ids")
    {
        Description = "Token ids to continue, separated by commas, in place of a prompt.",
    };
    private readonly Option<int> max = Shell.NumberOption(
        "--max-tokens",
        "Largest number of new tokens.",
        256,
        "a whole number, 1 or more",
        number => number > 0
    );
    private readonly Option<double> temperature = Shell.NumberOption(
        "--temperature",
        "Sampling temperature; 0 is greedy.",
        0.0,
        "a number from 0 to 100",
        number => number is >= 0 and <= 100
    );
    private readonly Option<double> topP = Shell.NumberOption(
        "--top-p",
        "Sample from the likeliest tokens whose probabilities reach this sum.",
        1.0,
        "a number above 0, at most 1",
        number => number is > 0 and <= 1
    );
    private readonly Option<int> seed = new("--seed")
    {
        Description = "Seed of the sampling.",
        DefaultValueFactory = _ => 42,
    };
    private readonly Option<bool> ignoreEos = new("--ignore-eos")
    {
        Description = "Do not stop at the end of the answer.",
    };
    private readonly Option<bool> json = Shell.JsonOption();

    public static Command Create() => new InferCommand().Declare();

    private Command Declare()
    {
        var command = new Command(
            "infer",
            "Answer a prompt, greedily or sampled.\n\nExample:\n  dotnet memopt infer --adapter "
                + ".memopt/memopt/adapter 'What part of speech is \"chub\"?'\n  noun"
        )
        {
            prompt,
            raw,
            ids,
            max,
            temperature,
            topP,
            seed,
            ignoreEos,
            json,
        };
        model.AddTo(command);
        command.SetGuardedAction(json, Run);
        return command;
    }

    private int Run(ParseResult parsed, CancellationToken stop)
    {
        var folder = model.Folder(parsed, stop);
        var spec = ModelSpec.Read(folder);
        // Ids need no tokenizer: a model may come without one.
        var tokenizer =
            File.Exists(Path.Combine(folder, "tokenizer.json")) || parsed.GetValue(ids) is null
                ? Tokenizer.Load(folder, stop)
                : null;
        var template = parsed.GetValue(raw) ? null : ChatTemplate.Load(folder);
        var input = parsed.GetValue(ids) is { } listed
            ? Ids(listed, spec)
            : Encode(Prompt(parsed), tokenizer!, template);
        var (loaded, _, _) = model.Load(parsed);
        using (loaded)
        {
            var shown = parsed.GetValue(json) ? null : tokenizer;
            var answer = Answer(Generate(loaded, spec, input, parsed), shown, Console.Out, stop);
            if (parsed.GetValue(json))
                Shell.Print(
                    new
                    {
                        prompt = input,
                        ids = answer,
                        text = tokenizer is null ? null : Whole(tokenizer.Decode(answer)),
                    }
                );
            else
                Console.Out.WriteLine(tokenizer is null ? string.Join(",", answer) : "");
        }
        return 0;
    }

    private static IReadOnlyList<int> Ids(string listed, ModelSpec spec)
    {
        var ids = listed
            .Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)
            .Select(part =>
                int.TryParse(part, out var id) && id >= 0 && id < spec.VocabSize
                    ? id
                    : throw new UserFault(
                        $"--ids: \"{part}\" is not a token of this model.",
                        found: part,
                        next: $"use numbers from 0 to {spec.VocabSize - 1}"
                    )
            )
            .ToList();
        return ids.Count > 0 ? ids : throw new UserFault("--ids is empty.");
    }

    private string Prompt(ParseResult parsed)
    {
        var text = parsed.GetValue(prompt) ?? Console.In.ReadToEnd();
        return text.Length > 0
            ? text
            : throw new UserFault("The prompt is empty.", next: "dotnet memopt infer \"a question\"");
    }

    private static IReadOnlyList<int> Encode(string prompt, Tokenizer tokenizer, ChatTemplate? template)
    {
        var tokens = template is null
            ? tokenizer.Encode(prompt, addSpecial: true)
            : tokenizer.Encode(
                template.Render([new() { ["role"] = "user", ["content"] = prompt }], addGenerationPrompt: true)
            );
        return tokens.Length > 0
            ? tokens
            : throw new UserFault(
                "The prompt has no token.",
                found: prompt,
                next: "dotnet memopt infer \"a question\""
            );
    }

    private IEnumerable<int> Generate(Decoder loaded, ModelSpec spec, IReadOnlyList<int> input, ParseResult parsed) =>
        Generation.Run(
            loaded,
            input,
            parsed.GetValue(ignoreEos) ? [] : spec.EndOfTurn,
            new Sampling(
                parsed.GetValue(max),
                parsed.GetValue(temperature),
                parsed.GetValue(topP),
                parsed.GetValue(seed)
            )
        );

    /// <summary>Takes the tokens as they are generated, and writes their text meanwhile.</summary>
    /// <param name="tokens">The answer.</param>
    /// <param name="shown">Decodes what is written; null writes nothing.</param>
    /// <param name="output">Where it is written.</param>
    /// <param name="stop">Ends the generation.</param>
    internal static List<int> Answer(
        IEnumerable<int> tokens,
        Tokenizer? shown,
        TextWriter output,
        CancellationToken stop
    )
    {
        var answer = new List<int>();
        var stream = shown is null ? null : new TokenStream(shown);
        foreach (var id in tokens)
        {
            stop.ThrowIfCancellationRequested();
            answer.Add(id);
            output.Write(stream?.Add(id));
        }
        output.Write(stream is null ? null : Whole(stream.End()));
        return answer;
    }

    /// <summary>A text without the U+FFFD that stands for a character whose last bytes were not generated.</summary>
    private static string Whole(string text) => text.TrimEnd('\uFFFD');
}
