using System.Text.Json.Nodes;
using Memopt.Trainer.Data.Chats;

namespace Memopt.Trainer.Data;

/// <summary>An instruction and its answer.</summary>
/// <param name="Instruction">What is asked for.</param>
/// <param name="Input">Further context; empty when there is none.</param>
/// <param name="Output">The answer.</param>
/// <param name="History">What was said before, as messages.</param>
internal sealed record AlpacaTurn(string Instruction, string Input, string Output, IReadOnlyList<JsonObject> History)
{
    /// <summary>As a chat.</summary>
    public List<JsonObject> Messages =>
        [
            .. History,
            ChatMessages.Message("user", Input.Length > 0 ? $"{Instruction}\n\n{Input}" : Instruction),
            ChatMessages.Message("assistant", Output),
        ];

    /// <summary>The prompt that Alpaca was trained with.</summary>
    public string Prompt =>
        Input.Length > 0
            ? "Below is an instruction that describes a task, paired with an input that provides further context. "
                + "Write a response that appropriately completes the request.\n\n### Instruction:\n"
                + $"{Instruction}\n\n### Input:\n{Input}\n\n### Response:\n"
            : "Below is an instruction that describes a task. Write a response that appropriately completes "
                + $"the request.\n\n### Instruction:\n{Instruction}\n\n### Response:\n";
}
