using System.CommandLine;
using Memopt.Core;
using Memopt.Text;
using Memopt.Tool.Cli;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Recipes;

namespace Memopt.Tool.Commands;

/// <summary><c>infer</c>: answers a prompt.</summary>
internal static class InferCommand
{
    public static Command Create()
    {
        var model = new ModelOptions();
        var prompt = new Argument<string?>("prompt")
        {
            Description = "A user's turn; standard input when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        var raw = new Option<bool>("--raw") { Description = "Continue the text as it is, without the chat template." };
        var ids = new Option<string?>("--ids")
        {
            Description = "Token ids to continue, separated by commas, in place of a prompt.",
        };
        var max = Shell.NumberOption(
            "--max-tokens",
            "At most so many new tokens.",
            256,
            "a whole number, 1 or more",
            number => number > 0
        );
        var temperature = Shell.NumberOption(
            "--temperature",
            "0 is greedy.",
            0.0,
            "a number from 0 to 100",
            number => number is >= 0 and <= 100
        );
        var topP = Shell.NumberOption(
            "--top-p",
            "Sample from the likeliest tokens of this share.",
            1.0,
            "a number above 0, at most 1",
            number => number is > 0 and <= 1
        );
        var seed = new Option<int>("--seed") { Description = "Seed of the sampling.", DefaultValueFactory = _ => 42 };
        var ignore = new Option<bool>("--ignore-eos") { Description = "Do not stop at the end of the answer." };
        var json = Shell.JsonOption();
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
            ignore,
            json,
        };
        model.AddTo(command);
        command.SetAction(
            (parsed, stop) =>
                Task.FromResult(
                    Shell.Guard(
                        parsed.GetValue(json),
                        () =>
                        {
                            var folder = model.Folder(parsed, stop);
                            var spec = ModelSpec.Read(folder);
                            var tokenizer =
                                File.Exists(Path.Combine(folder, "tokenizer.json")) || parsed.GetValue(ids) is null
                                    ? Tokenizer.Load(folder, stop)
                                    : null;
                            var input = Prompt(
                                parsed.GetValue(ids),
                                spec,
                                tokenizer,
                                () => parsed.GetValue(prompt) ?? Console.In.ReadToEnd(),
                                parsed.GetValue(raw) ? null : ChatTemplate.Load(folder)
                            );
                            var (loaded, _, _) = model.Load(parsed);
                            using (loaded)
                            {
                                var stops = parsed.GetValue(ignore)
                                    ? []
                                    : Trainer.Recipes.FineTuneRecipe.EndOfTurn(spec);
                                var output = new List<int>();
                                var stream = tokenizer is null ? null : new TokenStream(tokenizer);
                                foreach (
                                    var id in Generation.Run(
                                        loaded,
                                        input,
                                        stops,
                                        new Sampling(
                                            parsed.GetValue(max),
                                            parsed.GetValue(temperature),
                                            parsed.GetValue(topP),
                                            parsed.GetValue(seed)
                                        )
                                    )
                                )
                                {
                                    stop.ThrowIfCancellationRequested();
                                    output.Add(id);
                                    if (!parsed.GetValue(json))
                                        Console.Out.Write(stream?.Add(id));
                                }
                                if (parsed.GetValue(json))
                                    Shell.Print(
                                        new
                                        {
                                            prompt = input,
                                            ids = output,
                                            text = tokenizer?.Decode(output),
                                        }
                                    );
                                else
                                    Console.Out.WriteLine(stream is null ? string.Join(",", output) : stream.End());
                            }
                            return 0;
                        }
                    )
                )
        );
        return command;
    }

    private static IReadOnlyList<int> Prompt(
        string? ids,
        ModelSpec spec,
        Tokenizer? tokenizer,
        Func<string> text,
        ChatTemplate? template
    )
    {
        if (ids is not null)
        {
            var parts = ids.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
            var parsed = parts
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
            return parsed.Count > 0 ? parsed : throw new UserFault("--ids is empty.");
        }
        var prompt = text();
        if (prompt.Length == 0)
            throw new UserFault("The prompt is empty.", next: "dotnet memopt infer \"a question\"");
        var tokens = template is null
            ? tokenizer!.Encode(prompt, addSpecial: true)
            : tokenizer!.Encode(
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
}
