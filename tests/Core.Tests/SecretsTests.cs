using System.Text.Json;

namespace Memopt.Core.Tests;

public sealed class SecretsTests
{
    private const string Hidden = "hunter2hunter2hunter2";

    [Theory]
    [InlineData("token")]
    [InlineData("HF_TOKEN")]
    [InlineData("hfToken")]
    [InlineData("HFToken")]
    [InlineData("env.MEMOPT_ACCESS_TOKEN")]
    [InlineData("api_key")]
    [InlineData("apiKey")]
    [InlineData("APIKEY")]
    [InlineData("x-api-key")]
    [InlineData("clientSecret")]
    [InlineData("db.password")]
    [InlineData("ACCOUNT_KEY")]
    [InlineData("AccountKey")]
    [InlineData("AZURE_STORAGE_CONNECTION_STRING")]
    [InlineData("connectionString")]
    [InlineData("sas")]
    [InlineData("sasToken")]
    [InlineData("Authorization")]
    [InlineData("aws_secret_access_key")]
    [InlineData("credentials")]
    public void Name_of_a_secret_is_recognized(string name)
    {
        Assert.True(Secrets.Tells(name));
        Assert.Equal(Secrets.Redacted, Secrets.Redact(name, Hidden));
    }

    [Theory]
    [InlineData("tokenizer")]
    [InlineData("tokens")]
    [InlineData("maxTokens")]
    [InlineData("tokens_per_second")]
    [InlineData("eos_token")]
    [InlineData("pad_token_id")]
    [InlineData("token_type_ids")]
    [InlineData("keys")]
    [InlineData("keyboard")]
    [InlineData("author")]
    [InlineData("passes")]
    [InlineData("model.source")]
    public void Name_of_no_secret_keeps_its_value(string name) => Assert.Equal("kept", Secrets.Redact(name, "kept"));

    [Theory]
    [InlineData("https://h/m?sv=1&sig={0}&se=2", "https://h/m?sv=1&sig=[redacted]&se=2")]
    [InlineData("https://h/m?sig={0}%2Bx%3D", "https://h/m?sig=[redacted]")]
    [InlineData(
        "https://h/m?sv=1\\u0026sig={0}\\u002Bx\\u0026se=2",
        "https://h/m?sv=1\\u0026sig=[redacted]\\u0026se=2"
    )]
    [InlineData("https://h/m?sv=1&amp;sig={0}&amp;se=2", "https://h/m?sv=1&amp;sig=[redacted]&amp;se=2")]
    [InlineData(
        "https%3A%2F%2Fh%2Fm%3Fsv%3D1%26sig%3D{0}%252B%26se%3D2",
        "https%3A%2F%2Fh%2Fm%3Fsv%3D1%26sig%3D[redacted]%26se%3D2"
    )]
    [InlineData("x%2526sig%253D{0}%2526y", "x%2526sig%253D[redacted]%2526y")]
    [InlineData(
        "https://s3/m?X-Amz-Credential={0}&X-Amz-Date=1&X-Amz-Signature={0}&X-Amz-Security-Token={0}",
        "https://s3/m?X-Amz-Credential=[redacted]&X-Amz-Date=1&X-Amz-Signature=[redacted]&X-Amz-Security-Token=[redacted]"
    )]
    [InlineData("https://g/m?X-Goog-Signature={0} and more", "https://g/m?X-Goog-Signature=[redacted] and more")]
    [InlineData("https://h/?access_token={0}", "https://h/?access_token=[redacted]")]
    [InlineData("https://h/?password=a%26{0}&b=1", "https://h/?password=[redacted]&b=1")]
    [InlineData("https://user:{0}@h/m", "https://user:[redacted]@h/m")]
    [InlineData("https://us%40er:{0}@h/m", "https://us%40er:[redacted]@h/m")]
    [InlineData("https://user:a@{0}@h/m", "https://user:[redacted]@h/m")]
    [InlineData("https:\\/\\/user:{0}@h", "https:\\/\\/user:[redacted]@h")]
    [InlineData("https%3A%2F%2Fuser%3A{0}%40h", "https%3A%2F%2Fuser%3A[redacted]%40h")]
    [InlineData("https://{0}@h/m", "https://[redacted]@h/m")]
    [InlineData("AccountName=a;AccountKey={0}+/==;Suffix=b", "AccountName=a;AccountKey=[redacted];Suffix=b")]
    [InlineData("AccountKey\\u003d{0}\\u002B;b", "AccountKey\\u003d[redacted];b")]
    [InlineData("AccountKey%3D{0}%2B%3Bb", "AccountKey%3D[redacted]%3Bb")]
    [InlineData("Authorization: Bearer {0}", "Authorization: Bearer [redacted]")]
    [InlineData("authorization: basic {0}", "authorization: basic [redacted]")]
    [InlineData("hf_{0} sk-{0} AKIAABCDEFGHIJKLMNOP ghp_{0}", "[redacted] [redacted] [redacted] [redacted]")]
    [InlineData("q%3Dhf_{0}", "q%3D[redacted]")]
    [InlineData("eyJhbGciOiJI.eyJzdWIiOiIx.{0}", "[redacted]")]
    [InlineData("said {{\"api_key\": \"a\\\"{0}\", \"b\": 1}}", "said {{\"api_key\": [redacted], \"b\": 1}}")]
    [InlineData("said {{'password': \"it's {0}\"}}", "said {{'password': [redacted]}}")]
    [InlineData("said {{\\\"token\\\":\\\"{0}\\\",\\\"b\\\":1}}", "said {{\\\"token\\\":[redacted],\\\"b\\\":1}}")]
    public void Secret_in_any_escaping_is_redacted(string text, string clean)
    {
        (text, clean) = (
            text.Replace("{0}", Hidden).Replace("{{", "{").Replace("}}", "}"),
            clean.Replace("{{", "{").Replace("}}", "}")
        );
        Assert.Equal(clean, Secrets.Redact(text));
        Assert.Equal(clean, Secrets.Redact(clean));
    }

    [Theory]
    [InlineData("http://localhost:8080/a b@c")]
    [InlineData("az://account/container/path")]
    [InlineData("https://h/m?revision=main&x=1")]
    [InlineData("Basic training of bearer bonds; task-list sk-learn hf_home")]
    [InlineData("{ \"tokenizer\": \"t\",\n  \"maxTokens\": 5 }")]
    [InlineData("[not JSON")]
    [InlineData("[]")]
    public void Text_without_secrets_stays_as_it_is(string text) => Assert.Equal(text, Secrets.Redact(text));

    [Fact]
    public void JSON_with_nested_secrets_stays_JSON_and_loses_them()
    {
        var text = JsonSerializer.Serialize(
            new
            {
                model = new { source = $"https://h/m?a=1&sig={Hidden}", rank = 4 },
                tags = new Dictionary<string, object?>
                {
                    ["api_key"] = Hidden,
                    ["pin"] = 1,
                    ["empty_password"] = "",
                    ["password"] = 12345,
                    ["on_token"] = true,
                },
                credentials = new { user = "u", deep = new[] { Hidden } },
                list = new object[]
                {
                    $"hf_{Hidden}",
                    new { secret = Hidden },
                    new { text = $"{{\"deep\":{{\"client_secret\":\"{Hidden}\"}}}}" },
                },
            }
        );
        var clean = Secrets.Redact(text);
        Assert.DoesNotContain(Hidden, clean);
        Assert.DoesNotContain("12345", clean);
        var json = JsonDocument.Parse(clean).RootElement;
        Assert.Equal("https://h/m?a=1&sig=[redacted]", json.GetProperty("model").GetProperty("source").GetString());
        Assert.Equal(4, json.GetProperty("model").GetProperty("rank").GetInt32());
        Assert.Equal(1, json.GetProperty("tags").GetProperty("pin").GetInt32());
        Assert.Equal(clean, Secrets.Redact(clean));
    }

    [Theory]
    [InlineData("eyJ")]
    [InlineData("-eyJ")]
    [InlineData("://")]
    [InlineData("://a:")]
    [InlineData("%3A%2F%2F")]
    [InlineData("?a_")]
    [InlineData("%25")]
    [InlineData("%26a.")]
    [InlineData("\\u0026")]
    [InlineData("-----BEGIN PRIVATE KEY-----")]
    [InlineData("\"a\"")]
    [InlineData("\\")]
    [InlineData("sk-")]
    [InlineData("aA")]
    [InlineData("[")]
    [InlineData("{\"a\":")]
    public void Text_made_to_slow_the_search_is_redacted_within_its_time(string piece)
    {
        // A search that gives up gives none of the text back.
        var text = "text " + string.Concat(Enumerable.Repeat(piece, 20_000 / piece.Length));
        Assert.StartsWith("text ", Secrets.RedactLines(Secrets.Redact(text)));
        Secrets.Redact(text[5..]);
    }
}
