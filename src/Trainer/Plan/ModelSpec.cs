using Memopt.Core;
using Memopt.Trainer.Plan.Blocks;

namespace Memopt.Trainer.Plan;

/// <summary>A model's architecture, from its own config.json: each layer by its blocks. <see cref="ModelConfig"/>
/// reads it. <see cref="OfStage"/> describes the part that a stage of a pipeline holds.</summary>
internal sealed class ModelSpec
{
    private ModelSpec? whole;

    public required string ModelType { get; init; }
    public required int VocabSize { get; init; }
    public required int HiddenSize { get; init; }

    /// <summary>The layers, in the order they are run.</summary>
    public required IReadOnlyList<LayerSpec> Blocks { get; init; }
    public required double RmsNormEps { get; init; }
    public required bool TieWordEmbeddings { get; init; }
    public required int MaxPositions { get; init; }
    public required RopeSpec Rope { get; init; }

    /// <summary>Tokens that end an answer, from generation_config.json and config.json.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];

    /// <summary>The same tokens as a set.</summary>
    public HashSet<int> EndOfTurn => [.. EosTokenIds];
    public int? BosTokenId { get; init; }
    public int? PadTokenId { get; init; }

    /// <summary>Type the weights were saved in: float32, bfloat16, float16.</summary>
    public string? Dtype { get; init; }

    /// <summary>The stage of a pipeline that this describes.</summary>
    public PipelineStage Stage { get; private init; } = PipelineStage.Only;

    /// <summary>The whole model, of which this may be a stage.</summary>
    public ModelSpec Whole => whole ?? this;

    /// <summary>Whether it has the embeddings. With a tied head the last stage has them too.</summary>
    public bool HasEmbeddings => Stage.IsFirst || (Stage.IsLast && TieWordEmbeddings);

    /// <summary>Whether it has the last norm and the head.</summary>
    public bool HasHead => Stage.IsLast;

    /// <summary>How many layers there are.</summary>
    public int Layers => Blocks.Count;

    /// <summary>The head's linear; its weight is that of the embeddings where they are tied.</summary>
    public LinearSpec Head => new("lm_head", HiddenSize, VocabSize, false) { Split = VocabularySplit };

    /// <summary>How tensor parallel ranks divide embeddings and head: each has some tokens of the vocabulary.</summary>
    public TensorSplit VocabularySplit => new(0, new SplitPart(VocabSize, 1));

    /// <summary>What a tensor parallel rank has of the model, the largest part where the vocabulary does not divide
    /// evenly.</summary>
    /// <param name="ranks">Ranks that share the matrices.</param>
    /// <exception cref="UserFault">They do not divide the heads or the channels.</exception>
    public ModelSpec Shard(int ranks)
    {
        if (ranks == 1)
            return this;
        foreach (var layer in Blocks)
        {
            var (attention, mlp) = (layer.Attention, layer.Mlp);
            var keys = Math.Max(attention.KvHeads, ranks) % Math.Min(attention.KvHeads, ranks);
            if (attention.Heads % ranks != 0 || keys != 0 || mlp.IntermediateSize % ranks != 0)
                throw new UserFault(
                    $"distributed.tensor = {ranks} does not divide this model.",
                    found: $"layer {layer.Index} has {attention.Heads} query heads, {attention.KvHeads} key and value "
                        + $"heads and {mlp.IntermediateSize} channels in its MLP",
                    next: "set distributed.tensor to a number that divides them"
                );
        }
        var blocks = Blocks.Select(layer => layer.Shard(ranks)).ToList();
        return Part((VocabSize + ranks - 1) / ranks, blocks, Stage, whole);
    }

    /// <summary>Reads a config.json (or the one in a folder). All problems are in one fault.</summary>
    public static ModelSpec Read(string path) => ModelConfig.Read(path);

    /// <summary>Every tensor of the weights file, in the order of the layers.</summary>
    public IReadOnlyList<TensorSpec> Tensors =>
        [
            .. HasEmbeddings ? [Embeddings] : Array.Empty<TensorSpec>(),
            .. Blocks.SelectMany(layer => layer.Tensors),
            .. HasHead ? [new("model.norm.weight", [HiddenSize])] : Array.Empty<TensorSpec>(),
            .. HasHead && !TieWordEmbeddings
                ? [new("lm_head.weight", [VocabSize, HiddenSize])]
                : Array.Empty<TensorSpec>(),
        ];

    /// <summary>The embeddings' tensor.</summary>
    public TensorSpec Embeddings => new("model.embed_tokens.weight", [VocabSize, HiddenSize]);

    /// <summary>The linears of the layers, in the order they are run; the head is not among them.</summary>
    public IReadOnlyList<LinearSpec> Linears => field ??= [.. Blocks.SelectMany(layer => layer.Linears)];

    /// <summary>Every linear that an adapter may lie around: those of the layers and the head.</summary>
    public IReadOnlyList<LinearSpec> AllLinears => HasHead ? [.. Linears, Head] : Linears;

    /// <summary>Weights in all, a tied head counted once.</summary>
    public long Parameters => field > 0 ? field : field = Tensors.Sum(tensor => tensor.Elements);

    /// <summary>The part of the model that a stage of a pipeline holds. Layers keep their places in the
    /// model.</summary>
    /// <param name="stage">The stage.</param>
    /// <param name="blocks">Its layers.</param>
    public ModelSpec OfStage(PipelineStage stage, IReadOnlyList<LayerSpec> blocks) =>
        Part(VocabSize, blocks, stage, Whole);

    private ModelSpec Part(int vocabulary, IReadOnlyList<LayerSpec> blocks, PipelineStage stage, ModelSpec? whole) =>
        new()
        {
            ModelType = ModelType,
            VocabSize = vocabulary,
            HiddenSize = HiddenSize,
            Blocks = blocks,
            RmsNormEps = RmsNormEps,
            TieWordEmbeddings = TieWordEmbeddings,
            MaxPositions = MaxPositions,
            Rope = Rope,
            EosTokenIds = EosTokenIds,
            BosTokenId = BosTokenId,
            PadTokenId = PadTokenId,
            Dtype = Dtype,
            Stage = stage,
            whole = whole,
        };
}
