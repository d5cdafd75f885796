// 4-bit blocks of 64: two codes a byte, the even element in the high nibble.

// 16 values a thread. scales: fp32, or u8 with map, nested (one fp32 for 256) and offset.
extern "C" __global__ void dequantize(const u8* codes, const void* scales, const float* nested, const float* map, const float* offset, const float* values, T* y, i64 count)
{
    __shared__ float value[16], real[256];
    if (threadIdx.x < 16)
        value[threadIdx.x] = values[threadIdx.x];
    if (nested)
        for (int i = threadIdx.x; i < 256; i += blockDim.x)
            real[i] = map[i];
    __syncthreads();
    i64 from = (blockIdx.x * (i64)blockDim.x + threadIdx.x) * 16;
    if (from >= count)
        return;
    i64 block = from / 64;
    // Product and sum are rounded one by one, as everywhere else.
    float scale = nested ? __fadd_rn(__fmul_rn(real[((const u8*)scales)[block]], nested[block / 256]), *offset) : ((const float*)scales)[block];
    if (from + 16 <= count)
    {
        u64 bits = *reinterpret_cast<const u64*>(codes + from / 2);
        const int N = 16 / sizeof(T);
        Pack<T, N> out[16 / N];
#pragma unroll
        for (int i = 0; i < 16; i++)
        {
            int code = (int)(bits >> (i / 2 * 8 + (i % 2 == 0 ? 4 : 0))) & 15;
            out[i / N].set(i % N, value[code] * scale);
        }
#pragma unroll
        for (int i = 0; i < 16 / N; i++)
            store(y + from + i * N, out[i]);
    }
    else
    {
        for (i64 i = from; i < count; i++)
            y[i] = narrow<T>(value[(codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15] * scale);
    }
}

// A warp a block of 64 values, a byte a lane. A value's code is the number of thresholds below it; fp4 looks at the magnitude, then names its nibble.
extern "C" __global__ void quantize(const T* x, u8* codes, float* scales, const float* thresholds, int levels, const u8* nibbles, i64 count)
{
    i64 block = (blockIdx.x * (i64)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x & 31;
    if (block * 64 >= count)
        return;
    i64 at = block * 64 + lane * 2;
    float a = at < count ? wide(x[at]) : 0.f, b = at + 1 < count ? wide(x[at + 1]) : 0.f;
    float most = fmaxf(fabsf(a), fabsf(b));
    bool broken = a != a || b != b;
    for (int step = 16; step > 0; step >>= 1)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    if (__any_sync(0xffffffffu, broken))
        most = __int_as_float(0x7fc00000);                                    // NaN stays visible, as a maximum over it is
    if (lane == 0)
        scales[block] = most;
    float inverse = 1.f / most, pair[2] = { a * inverse, b * inverse };
    int byte = 0;
    for (int i = 0; i < 2; i++)
    {
        float magnitude = nibbles ? fabsf(pair[i]) : pair[i];
        int code = 0;
        for (int t = 0; t < levels; t++)
            code += magnitude > thresholds[t];
        if (nibbles)
            code = nibbles[code] + (pair[i] < 0.f ? 8 : 0);
        if (at + i >= count)
            code = 0;
        byte = byte << 4 | code;
    }
    if (at < count)
        codes[at / 2] = (u8)byte;
}
