using System.Text.Json.Nodes;
using Memopt.Trainer.Config;

namespace Memopt.Trainer.Data.Chats;

/// <summary>Keys of a message that say whether its tokens carry loss.</summary>
internal static class TurnLoss
{
    /// <summary>Takes the keys out of a message. The answer is whether its tokens carry loss if the assistant says it.
    /// </summary>
    public static bool Take(JsonObject message, int number, TrainOn trainOn)
    {
        var trained = Take(message, number);
        if (trained == true && trainOn != TrainOn.All && (string?)message["role"] != "assistant")
            throw new RowFault(
                $"message {number} is to carry loss and is not the assistant's",
                "only the assistant's turns do; data.trainOn = all trains every token"
            );
        if (trained == false && trainOn == TrainOn.All)
            throw new RowFault(
                $"message {number} is to carry no loss, and data.trainOn = all trains every token",
                "set data.trainOn = assistant"
            );
        return trained != false;
    }

    /// <summary>What the keys say; null when there is none.</summary>
    private static bool? Take(JsonObject message, int number)
    {
        bool? trained = null;
        foreach (var key in KnownKeys.Trained)
        {
            if (!message.Remove(key, out var node) || node is null)
                continue;
            bool says = node.ToJsonString() switch
            {
                "true" or "1" or "1.0" => true,
                "false" or "0" or "0.0" => false,
                var other => throw new RowFault(
                    $"\"{key}\" of message {number} is {RowFields.Shown(node)}",
                    "a turn carries loss or none: 1 or 0, true or false"
                ),
            };
            if (trained is { } before && before != says)
                throw new RowFault(
                    $"message {number} is to carry loss and not to",
                    string.Join(", ", KnownKeys.Trained) + ": keep one"
                );
            trained = says;
        }
        return trained;
    }
}
