using Memopt.Trainer.Autograd;
using Memopt.Trainer.Data;
using Memopt.Trainer.Linears;
using Memopt.Trainer.Native;
using Memopt.Trainer.Plan;
using Memopt.Trainer.Plan.Blocks;
using static TorchSharp.torch;

namespace Memopt.Trainer.Models;

/// <summary>The decoder of Llama, Qwen2, Qwen3, Mistral and Phi-3: one class, since they differ only in what
/// <see cref="ModelSpec"/> says. A stage of a pipeline is a decoder that has some of the layers: the first has the
/// embeddings too, the last the norm and the head.
/// </summary>
internal sealed class Decoder : IDisposable
{
    private readonly ModelSpec spec;
    private readonly Parameter? embeddings;
    private readonly RmsNorm? lastNorm;
    private Linear? head;

    public Decoder(ModelSpec spec, IWeightSource parts, ScalarType type, Device device, TensorParallel? tensor = null)
    {
        (this.spec, Type, Device, Tensor) = (spec, type, device, tensor);
        embeddings = spec.HasEmbeddings ? parts.Weight(spec.Embeddings.Name, spec.VocabularySplit) : null;
        layers = [.. spec.Blocks.Select(block => Layer(block, parts))];
        if (!spec.HasHead)
            return;
        lastNorm = new RmsNorm(parts.Weight("model.norm.weight"), spec.RmsNormEps);
        head = spec.TieWordEmbeddings
            ? new DenseLinear("lm_head", embeddings!) { Slice = embeddings!.Slice }
            : parts.Linear(spec.Head);
    }

    public ModelSpec Spec => spec;

    /// <summary>Type the activations are computed in.</summary>
    public ScalarType Type { get; }

    public Device Device { get; }

    /// <summary>The ranks that share the matrices; null where this one has all of them.</summary>
    public TensorParallel? Tensor { get; }

    /// <exception cref="InvalidOperationException">This stage of a pipeline has none.</exception>
    public Parameter embed_tokens => embeddings ?? throw Missing("embeddings");

    /// <summary>Those of this stage of a pipeline, or all.</summary>
    public DecoderLayer[] layers { get; }

    /// <exception cref="InvalidOperationException">This stage of a pipeline has none.</exception>
    public RmsNorm norm => lastNorm ?? throw Missing("norm");

    /// <exception cref="InvalidOperationException">This stage of a pipeline has none.</exception>
    public Linear lm_head
    {
        get => head ?? throw Missing("head");
        set => head = value;
    }

    /// <summary>How a layer is run: everything is saved for its backward unless a memory pass says otherwise.</summary>
    public LayerForward RunLayer { get; set; } = DecoderLayer.Plain;

    /// <summary>The ranks that share the tokens of each row; null where each has whole rows.</summary>
    public ContextParallel? ContextParallel { get; set; }

    /// <summary>What this rank computes of a micro-batch.</summary>
    public MicroBatch Own(MicroBatch batch) => ContextParallel?.Slice(batch) ?? batch;

    /// <summary>The collectives within a pass.</summary>
    public IPassCollectives Collectives { get; set; } = NoCollectives.Instance;

    /// <summary>Every linear with a way to put another in its place, in the order of the layers; the head
    /// last.</summary>
    public IEnumerable<(Linear Linear, Action<Linear> Replace)> Linears()
    {
        foreach (var layer in layers)
        {
            foreach (var slot in Slots(layer.self_attn.projections))
                yield return slot;
            yield return (layer.self_attn.o_proj, linear => layer.self_attn.o_proj = linear);
            foreach (var slot in Slots(layer.mlp.projections))
                yield return slot;
            yield return (layer.mlp.down_proj, linear => layer.mlp.down_proj = linear);
        }
        if (head is not null)
            yield return (head, linear => head = linear);

        static IEnumerable<(Linear, Action<Linear>)> Slots(Projections projections) =>
            projections.Select((linear, i) => (linear, (Action<Linear>)(other => projections.Replace(i, other))));
    }

    /// <summary>Every parameter once, in a fixed order: embeddings, layers, last norm, head.</summary>
    public IEnumerable<Parameter> Parameters()
    {
        var linears = Linears().Select(slot => slot.Linear).ToList();
        var norms = layers.SelectMany(layer => layer.Norms).Select(part => part.weight);
        return new[] { embeddings }
            .Concat(norms)
            .Append(lastNorm?.weight)
            .Concat(linears.SelectMany(linear => linear.Parameters))
            .OfType<Parameter>()
            .Distinct();
    }

    /// <summary>Bytes of the weights that are not trained, each tensor once.</summary>
    public long FrozenBytes =>
        Parameters()
            .Where(parameter => !parameter.RequiresGrad)
            .Select(parameter => parameter.Value)
            .Concat(Linears().SelectMany(slot => slot.Linear.Frozen).Select(slot => slot.Get()))
            .Distinct<Tensor>(ReferenceEqualityComparer.Instance)
            .Sum(tensor => tensor.numel() * tensor.element_size());

    /// <summary>Token ids (B, T) int64 → hidden states (B · T, C) after the last norm. Backward frees the gradient that
    /// it is given.</summary>
    /// <param name="ids">The ids. A later stage of a pipeline takes the hidden states of the stage before, (B · T, C),
    /// and frees them.</param>
    /// <param name="context">The pass.</param>
    public ForwardResult Forward(Tensor ids, ForwardContext context)
    {
        if (!spec.Stage.IsFirst)
            return ForwardEmbeddings(ids, context);
        using var off = no_grad();
        var (hidden, backward) = ForwardEmbeddings(Embed(ids), context);
        return backward is null
            ? new(hidden, null)
            : new(
                hidden,
                (gradient, _) =>
                {
                    using var off = no_grad();
                    var g = backward(gradient);
                    AccumulateEmbedding(ids, g, context);
                    return g;
                }
            );
    }

    /// <summary>Token ids (B, T) int64 → their embeddings (B · T, C).</summary>
    public Tensor Embed(Tensor ids)
    {
        using var scope = NewDisposeScope();
        var (rows, absent) = EmbeddingRows(ids);
        var x = embed_tokens.Cast(Type).index_select(0, rows);
        if (absent is not null)
            Tensor!.AllReduce(x.masked_fill_(absent, 0));
        return x.MoveToOuterDisposeScope();
    }

    /// <summary>Embeddings (B · T, C), of tokens or of images → hidden states after the last norm, or after the last
    /// layer of a stage without it. Backward frees the gradient that it is given, or accumulates into it, and returns
    /// that of the embeddings.</summary>
    /// <param name="x">The embeddings; this pass frees them.</param>
    /// <param name="context">The pass.</param>
    public ForwardResult ForwardEmbeddings(Tensor x, ForwardContext context)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        var (last, layersBackward) = ForwardLayers(x, context, 0, layers.Length);
        context.Cache?.Advance(context.Length);
        context.ReleaseWorkspace();
        if (lastNorm is null)
            return new(last.MoveToOuterDisposeScope(), layersBackward);
        var (h, normBackward) = lastNorm.forward(last, context);
        h.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(h, null);
        var saved = scope.TakeAll();
        return new(
            h,
            (gradient, _) =>
            {
                using var scope = NewDisposeScope();
                using var off = no_grad();
                var g = normBackward!(gradient);
                gradient.Dispose();
                last.Dispose();
                g = layersBackward!(g);
                foreach (var tensor in saved)
                    tensor.Dispose();
                return g.MoveToOuterDisposeScope();
            }
        );
    }

    /// <summary>Runs some of the layers, one after another: (N, C) → (N, C). Backward runs them from the last to the
    /// first and frees each layer's input on the way.</summary>
    /// <param name="x">Input of the first; this pass frees it.</param>
    /// <param name="context">The pass.</param>
    /// <param name="first">Index of the first layer.</param>
    /// <param name="count">How many layers.</param>
    public ForwardResult ForwardLayers(Tensor x, ForwardContext context, int first, int count)
    {
        using var scope = NewDisposeScope();
        scope.Attach(x);
        var inputs = new Tensor[count];
        var backwards = new Pullback?[count];
        for (var i = 0; i < count; i++)
        {
            var (y, backward) = RunLayer(layers[first + i], x, context);
            if (!context.NeedsGradient)
                x.Dispose();
            (inputs[i], x, backwards[i]) = (x, y, backward);
        }
        x.MoveToOuterDisposeScope();
        if (!context.NeedsGradient)
            return new(x, null);
        var saved = scope.TakeAll();
        return new(
            x,
            (gradient, _) =>
            {
                using var scope = NewDisposeScope();
                var g = gradient;
                for (var i = count - 1; i >= 0; i--)
                {
                    g = backwards[i]!(g);
                    inputs[i].Dispose();
                }
                foreach (var tensor in saved)
                    tensor.Dispose();
                return g.MoveToOuterDisposeScope();
            }
        );
    }

    private void AccumulateEmbedding(Tensor ids, Tensor gradient, ForwardContext context)
    {
        if (!embed_tokens.RequiresGrad)
            return;
        using var scope = NewDisposeScope();
        // A token that comes twice is added twice, on a GPU in any order unless it is set to keep one.
        using var order = TorchContext.Deterministic(context.Deterministic);
        var (rows, absent) = EmbeddingRows(ids);
        var own = absent is null ? gradient : gradient.masked_fill(absent, 0);
        embed_tokens.Grad!.index_add_(0, rows, own.to(float32), 1);
    }

    /// <summary>The rows (N) of this rank's embeddings that tokens have, and which tokens other ranks have (N, 1); null
    /// where none.</summary>
    private (Tensor Rows, Tensor? Absent) EmbeddingRows(Tensor ids)
    {
        var rows = ids.reshape(-1);
        if (embed_tokens.Slice?.Ranges[0] is not { } range)
            return (rows, null);
        rows = rows - range.Start;
        var absent = rows.lt(0).logical_or_(rows.ge(range.Length));
        return (rows.masked_fill_(absent, 0), absent.unsqueeze(1));
    }

    /// <summary>A pass over T tokens after those in the cache; positions count from there unless given, (B, T)
    /// int64. With a slice, a pass over the tokens of whole rows that this context parallel rank has.</summary>
    public ForwardContext NewContext(
        int length,
        Tensor? positions = null,
        Documents? documents = null,
        KvCache? cache = null,
        bool needsGradient = false,
        long? seed = null,
        int? longest = null,
        bool deterministic = true,
        ContextSlice? slice = null
    )
    {
        using var scope = NewDisposeScope();
        var past = cache?.Length ?? 0;
        positions ??= (
            slice is null ? arange(past, past + length, int64, Device) : Scopes.Upload(slice.Places, Device)
        ).unsqueeze(0);
        var (cos, sin) = Rope.Angles(spec, positions, longest ?? slice?.RowLength ?? past + length, Type);
        return new ForwardContext(cos, sin, length, documents, cache)
        {
            NeedsGradient = needsGradient,
            Seed = seed,
            Deterministic = deterministic,
            ContextParallel = slice is null ? null : new(ContextParallel!, slice, documents, Device),
        };
    }

    /// <summary>Logits (B, T, V) in the compute type.</summary>
    public Tensor Logits(Tensor ids, KvCache? cache = null)
    {
        using var scope = NewDisposeScope();
        using var off = no_grad();
        using var context = NewContext((int)ids.shape[1], cache: cache);
        var logits = lm_head.forward(Forward(ids, context).Output, context).Output;
        if (lm_head.Slice is { } slice)
            logits = (slice with { Shape = [logits.shape[0], spec.VocabSize], Dim = 1 }).Gather(logits, Tensor!.Group);
        return logits.view(ids.shape[0], ids.shape[1], -1).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        foreach (var (linear, _) in Linears())
            (linear as IDisposable)?.Dispose();
        foreach (var parameter in Parameters())
            parameter.Dispose();
    }

    private InvalidOperationException Missing(string part) =>
        new($"Stage {spec.Stage.Index} of {spec.Stage.Count} has no {part}.");

    private DecoderLayer Layer(LayerSpec block, IWeightSource parts)
    {
        var at = $"model.layers.{block.Index}.";
        var own = block.Shard(Tensor?.Ranks ?? 1);
        RmsNorm Norm(string name, bool ofHeads = false) =>
            new(parts.Weight(at + name + ".weight", isPartial: ofHeads), spec.RmsNormEps);
        // All but the last of a block's linears share its input.
        Projections Shared(IEnumerable<LinearSpec> linears) => new([.. linears.SkipLast(1).Select(parts.Linear)]);
        var (attention, mlp) = (block.Attention.Linears(at + "self_attn."), block.Mlp.Linears(at + "mlp."));
        var layer = new DecoderLayer(block.Index)
        {
            input_layernorm = Norm("input_layernorm"),
            self_attn = new Attention(own.Attention, block.Index, Tensor)
            {
                projections = Shared(attention),
                o_proj = parts.Linear(attention.Last()),
                q_norm = block.Attention.QkNorm ? Norm("self_attn.q_norm", ofHeads: true) : null,
                k_norm = block.Attention.QkNorm ? Norm("self_attn.k_norm", ofHeads: true) : null,
            },
            post_attention_layernorm = Norm("post_attention_layernorm"),
            mlp = new Mlp(own.Mlp, Tensor) { projections = Shared(mlp), down_proj = parts.Linear(mlp.Last()) },
        };
        parts.OnLayerLoaded(layer);
        return layer;
    }
}
