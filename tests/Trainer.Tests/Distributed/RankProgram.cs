using System.Diagnostics;
using Memopt.Core;
using Memopt.Trainer.Distributed;
using Memopt.Trainer.Native;
using Memopt.Trainer.Runs;
using TorchSharp;
using static TorchSharp.torch;

namespace Memopt.Trainer.Tests.Distributed;

/// <summary>One rank of the process group tests: <c>dotnet Trainer.Tests.dll ranks openmpi|mpich|nccl
/// [scenario]</c>. Exit code 0: every verb gave what it must; 75: a fault was reported as it must be.</summary>
internal static class RankProgram
{
    public static int Run(string[] args)
    {
        var backend = Backend.Load(args[1] == "nccl" ? "cuda" : "cpu", TestBackend.Environment);
        set_num_threads(1);
        var scenario = args.Length > 2 ? args[2] : "verbs";
        var limit = TimeSpan.FromSeconds(scenario == "freeze" ? 3 : 120);
        var engine = Join(args[1], backend, limit);
        // After a fault it is not disposed: it would wait for the other ranks.
        var group = new CheckedProcessGroup(engine);
        try
        {
            switch (scenario)
            {
                case "die" when group.Rank == 1:
                    Process.GetCurrentProcess().Kill();
                    break;
                case "freeze" when group.Rank == 1:
                    Console.WriteLine("frozen");
                    Thread.Sleep(Timeout.Infinite);
                    break;
                case "crash" when group.Rank == 0:
                    throw new InvalidOperationException("a fault of the program");
                case "crash":
                    group.Barrier(Timeout.InfiniteTimeSpan);
                    break;
                case "diverge" when group.Rank == 1:
                    group.Barrier();
                    break;
                case "diverge":
                    group.AllReduce(ones(3));
                    break;
                case "sizes":
                    group.AllReduce(ones(3 + group.Rank));
                    break;
                case "exchange":
                    Mismatched(group);
                    break;
                case "data":
                    new DataParallelCases(new World(group, ProcessEnvironment.RankPlace()!, CPU), args[3]).Check();
                    break;
                case "tensor":
                    new TensorParallelCases(new World(group, ProcessEnvironment.RankPlace()!, CPU), args[3]).Check();
                    break;
                case "context":
                    new ContextParallelCases(new World(group, ProcessEnvironment.RankPlace()!, CPU), args[3]).Check();
                    break;
                case "train":
                    var place = ProcessEnvironment.RankPlace()!;
                    new DataParallelCases(new World(group, place, CPU), args[3]).Check();
                    if (group.Size != 3)
                        new TensorParallelCases(new World(group, place, CPU), args[3]).Check();
                    new ContextParallelCases(new World(group, place, CPU), args[3]).Check();
                    new PipelineCases(new World(group, place, CPU), args[3]).Check();
                    Console.WriteLine($"rank {group.Rank} of {group.Size}: all cases");
                    break;
                case "pipeline":
                    new PipelineCases(new World(group, ProcessEnvironment.RankPlace()!, CPU), args[3]).Check();
                    Console.WriteLine($"rank {group.Rank} of {group.Size}: all cases");
                    break;
                default:
                    new Verbs(group, args[1] == "nccl" ? CUDA : CPU).Check();
                    Console.WriteLine($"rank {group.Rank} of {group.Size}: all verbs");
                    break;
            }
            group.Barrier();
            group.Dispose();
            return 0;
        }
        catch (UserFault fault)
        {
            Console.WriteLine($"rank {group.Rank}: {fault.Message} {fault.Found}");
            Console.Out.Flush();
            (engine as MpiProcessGroup)?.Abort(75);
            return 75;
        }
    }

    private static IProcessGroup Join(string engine, Backend backend, TimeSpan limit)
    {
        if (engine != "nccl")
            return MpiProcessGroup.Join(limit, engine == "mpich" ? MpiLibrary.Mpich : MpiLibrary.OpenMpi);
        int Number(string name) => int.Parse(Environment.GetEnvironmentVariable(name)!);
        var nccl = NcclLibrary.Load(backend.Folder);
        return NcclProcessGroup.Join(nccl, Number("RANK"), Number("WORLD_SIZE"), CUDA, limit);
    }

    private static void Mismatched(IProcessGroup group)
    {
        var other = 1 - group.Rank;
        group.Exchange([new(ones(4), other)], [new(ones(group.Rank == 0 ? 4 : 5), other)]);
    }

    /// <summary>Every verb over every type, against sums of small integers, which are exact in any order.</summary>
    private sealed class Verbs(IProcessGroup group, Device device)
    {
        private readonly int rank = group.Rank;
        private readonly int size = group.Size;

        public void Check()
        {
            foreach (var type in new[] { float32, float64, bfloat16, float16, int64, int32 })
            foreach (var count in new[] { 1L, 7, 4096, 100_003 })
            {
                using var scope = NewDisposeScope();
                AllReduce(count, type);
                ReduceScatter(count, type);
            }
            foreach (var type in new[] { uint8, float32, bfloat16 })
            {
                using var scope = NewDisposeScope();
                AllGather(type);
                Broadcast(type);
                Exchange(type);
            }
            Extremes();
            Numbers();
            // MPI's handlers of signals leave .NET's in their place.
            string? none = null;
            Assert.Throws<NullReferenceException>(() => none!.Length);
            Split();
            Refusals();
        }

        // Of rank r: r + 1 + i mod 5.
        private Tensor Values(long count, ScalarType type, int of) =>
            arange(count, int64).remainder(5).add(of + 1).to(type).to(device);

        private Tensor Sum(long count, ScalarType type) =>
            arange(count, int64).remainder(5).mul(size).add(size * (size + 1) / 2).to(type);

        private void AllReduce(long count, ScalarType type)
        {
            var x = Values(count, type, rank);
            group.AllReduce(x);
            Equal(Sum(count, type), x, $"AllReduce of {count} {type}");
        }

        private void ReduceScatter(long count, ScalarType type)
        {
            var output = zeros([count], type, device: device);
            group.ReduceScatter(Values(count * size, type, rank), output);
            Equal(Sum(count * size, type).narrow(0, rank * count, count), output, $"ReduceScatter of {count} {type}");
        }

        private void AllGather(ScalarType type)
        {
            var expected = cat([.. Enumerable.Range(0, size).Select(of => Values(33, type, of))]);
            var output = zeros([33L * size], type, device: device);
            group.AllGather(Values(33, type, rank), output);
            Equal(expected, output, $"AllGather of {type}");
            output.zero_();
            var slice = output.narrow(0, 33L * rank, 33);
            slice.copy_(Values(33, type, rank));
            group.AllGather(slice, output);
            Equal(expected, output, $"AllGather of {type} in place");
        }

        private void Broadcast(ScalarType type)
        {
            for (var source = 0; source < size; source++)
            {
                var x = Values(65, type, rank);
                group.Broadcast(x, source);
                Equal(Values(65, type, source), x, $"Broadcast of {type} from {source}");
            }
        }

        /// <summary>A ring in both directions with two tensors each way, too large to be sent before they are
        /// received.</summary>
        private void Exchange(ScalarType type)
        {
            const long large = 1 << 20;
            var (next, previous) = ((rank + 1) % size, (rank + size - 1) % size);
            Tensor Empty(long count) => zeros([count], type, device: device);
            var (a, b, c, d) = (Empty(large), Empty(3), Empty(large), Empty(3));
            group.Exchange(
                [
                    new(Values(large, type, rank), next),
                    new(Values(3, type, rank + 10), next),
                    new(Values(large, type, rank + 20), previous),
                    new(Values(3, type, rank + 30), previous),
                ],
                size > 2
                    ? [new(a, previous), new(b, previous), new(c, next), new(d, next)]
                    // Two ranks: both directions are one pair, in the order in which they were sent.
                    : [new(a, previous), new(b, previous), new(c, previous), new(d, previous)]
            );
            Equal(Values(large, type, previous), a, "Exchange, the first tensor");
            Equal(Values(3, type, previous + 10), b, "Exchange, the second tensor");
            Equal(Values(large, type, next + 20), c, "Exchange, the third tensor");
            Equal(Values(3, type, next + 30), d, "Exchange, the fourth tensor");
        }

        private void Extremes()
        {
            foreach (var type in new[] { float32, float64, int64 })
            {
                using var scope = NewDisposeScope();
                var (least, most) = (Values(5, type, rank), Values(5, type, rank));
                group.AllReduce(least, ReduceOp.Min);
                group.AllReduce(most, ReduceOp.Max);
                Equal(Values(5, type, 0), least, $"Min of {type}");
                Equal(Values(5, type, size - 1), most, $"Max of {type}");
            }
        }

        private void Numbers()
        {
            var all = Enumerable.Range(0, size).ToArray();
            Assert.Equal(all.SelectMany(of => new long[] { of, -of }), group.AllGather([rank, -rank]));
            Assert.Equal([all.Sum(), 2L * size], group.Agree([rank, 2], ReduceOp.Sum));
            Assert.Equal([0, 1L - size], group.Agree([rank, -rank], ReduceOp.Min));
            Assert.Equal([size - 1L, 0], group.Agree([rank, -rank], ReduceOp.Max));
        }

        private void Split()
        {
            using var scope = NewDisposeScope();
            using var part = group.Split(rank % 2, -rank); // in reverse order
            var members = Enumerable.Range(0, size).Where(other => other % 2 == rank % 2).Reverse().ToList();
            Assert.Equal((members.IndexOf(rank), members.Count), (part.Rank, part.Size));
            var x = full([9], rank + 1f, device: device);
            part.AllReduce(x);
            Equal(full([9], members.Sum(member => member + 1f)), x, "AllReduce of a part");
        }

        private void Refusals()
        {
            using var scope = NewDisposeScope();
            Assert.Throws<ArgumentException>(() => group.AllReduce(zeros([4, 4], device: device).t()));
            Assert.Throws<ArgumentException>(() => group.AllGather(zeros(3), zeros(3 * size + 1)));
            Assert.Throws<ArgumentException>(() => group.ReduceScatter(zeros(3 * size), zeros(3, float64)));
            Assert.Throws<ArgumentException>(() => group.Broadcast(zeros(3), size));
        }

        private static void Equal(Tensor expected, Tensor found, string verb)
        {
            using var scope = NewDisposeScope();
            if (!expected.cpu().eq(found.cpu()).all().item<bool>())
                throw new InvalidOperationException($"{verb}: another result than expected.");
        }
    }
}
