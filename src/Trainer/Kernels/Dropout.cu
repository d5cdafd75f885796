// Masks of dropout: 0 where dropped, 1 / (1 - p) where kept, from the seed and the place alone. The place is that in
// a larger mask where rows has the numbers of these rows there.

extern "C" __global__ void mask(T* y, u64 seed, i64 count, u64 dropped, float kept, const i64* rows,
    i64 width)
{
    i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    i64 place = rows ? rows[i / width] * width + i % width : i;
    u64 z = seed + 0x9E3779B97F4A7C15ull * (u64)(place + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    y[i] = narrow<T>((z >> 32) < dropped ? 0.f : kept);
}
