using Memopt.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Native;

/// <summary>Tells whether a libtorch that was loaded computes.</summary>
internal static class LibtorchSelfTest
{
    /// <summary>Product, gradient and bf16 against results worked out by hand.</summary>
    public static void Run(string kind)
    {
        using var scope = NewDisposeScope();
        var device = new Device(kind == "cuda" ? "cuda:0" : "cpu");
        var a = tensor(new float[] { 1, 2, 3, 4 }, device: device).reshape(2, 2).requires_grad_(true);
        var product = a.matmul(a); // [[7, 10], [15, 22]]
        product.sum().backward(); // d/da sum(a a) = 1 aᵀ + aᵀ 1 = [[7, 11], [9, 13]]
        float[] expected = [7, 10, 15, 22, 7, 11, 9, 13, 5];
        var narrow = tensor(new float[] { 1, 2 }, device: device).to(bfloat16);
        var got = product
            .detach()
            .cpu()
            .data<float>()
            .Concat(a.grad!.cpu().data<float>())
            .Append(narrow.mul(narrow).sum().to(float32).cpu().item<float>())
            .ToArray();
        if (!got.SequenceEqual(expected))
            throw new UserFault(
                "libtorch computes wrong results.",
                found: string.Join(", ", got),
                next: "dotnet memopt doctor"
            )
            {
                Failed = true,
            };
    }
}
