using Memopt.Core;

namespace Memopt.Text.Tokenizers;

/// <summary>Words by their beginnings, in UTF-16 units; the root is node 0.</summary>
internal sealed class Trie
{
    private const int BytesPerNode = 56; // with the spare room of the dictionary and the list

    private readonly Dictionary<long, int> next = [];
    private readonly List<int> values = [-1];

    public void Add(string word, int value, Budget budget)
    {
        var node = 0;
        foreach (var unit in word)
        {
            if (!next.TryGetValue(Key(node, unit), out var child))
            {
                budget.Spend(BytesPerNode);
                next[Key(node, unit)] = child = values.Count;
                values.Add(-1);
            }
            node = child;
        }
        values[node] = value;
    }

    /// <summary>The node one unit further on, or -1.</summary>
    public int Step(int node, char unit) => next.TryGetValue(Key(node, unit), out var child) ? child : -1;

    /// <summary>What the word that ends at a node stands for, or -1 where none ends.</summary>
    public int Value(int node) => values[node];

    private static long Key(int node, char unit) => (long)node << 16 | unit;
}
