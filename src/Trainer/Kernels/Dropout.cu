// Masks of dropout: 0 where dropped, 1 / (1 - p) where kept, from the seed and the place alone.

extern "C" __global__ void mask(T* y, u64 seed, i64 count, u64 dropped, float kept)
{
    i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    u64 z = seed + 0x9E3779B97F4A7C15ull * (u64)(i + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    y[i] = narrow<T>((z >> 32) < dropped ? 0.f : kept);
}
