using System.Text.Json.Nodes;

namespace Memopt.Trainer.Data.Chats;

/// <summary>What a chat's row says beside its messages.</summary>
internal static class ChatVariables
{
    /// <summary>The variables of the template: tools, documents, and those that the row names.</summary>
    public static JsonObject Of(JsonObject json)
    {
        var variables = new JsonObject();
        if (Tools(json) is { } tools)
            variables["tools"] = tools;
        if (RowFields.Objects(json, "documents") is { } documents)
            variables["documents"] = documents.DeepClone();
        if (json["parallel_tool_calls"] is { } parallel)
            variables["parallel_tool_calls"] = parallel.DeepClone();
        AddNamed(variables, json["chat_template_kwargs"]);
        return variables;
    }

    /// <summary>What the row says to the model before the chat, as LLaMA-Factory and ms-swift have it.</summary>
    public static string? SystemPrompt(JsonObject json)
    {
        var said = new[] { "system", "system_prompt" }
            .Where(key => json[key] is not null)
            .Select(key => RowFields.Text(json, key))
            .Where(text => text.Length > 0)
            .Distinct()
            .ToList();
        return said.Count < 2
            ? said.FirstOrDefault()
            : throw new RowFault("system and system_prompt are both written and differ", "keep one");
    }

    /// <summary>The row's tools, also as OpenAI's functions were before tools; null when it has none.</summary>
    private static JsonArray? Tools(JsonObject json)
    {
        var tools = RowFields.Objects(json, "tools");
        if (RowFields.Objects(json, "functions") is not { Count: > 0 } functions)
            return (JsonArray?)tools?.DeepClone();
        if (tools is { Count: > 0 })
            throw new RowFault("tools and functions are both written", "keep tools");
        return new([
            .. functions.Select(function => new JsonObject
            {
                ["type"] = "function",
                ["function"] = function!.DeepClone(),
            }),
        ]);
    }

    private static void AddNamed(JsonObject variables, JsonNode? named)
    {
        if (!KnownKeys.Given(named))
            return;
        foreach (
            var (key, value) in RowFields.Parsed(named) as JsonObject
                ?? throw new RowFault("chat_template_kwargs is not an object", RowFields.Shown(named))
        )
            variables[key] = key is "tools" or "documents"
                ? throw new RowFault($"chat_template_kwargs has {key}", "write it beside the messages")
                : value?.DeepClone();
    }
}
