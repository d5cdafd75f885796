// Cross-entropy of rows of logits, and in their place its gradient; one block a row, two readings of it.

// In sixteen bits the fast exponential is exact enough.
__device__ inline float power(float x) { return sizeof(T) == 2 ? __expf(x) : expf(x); }

struct Best { float max; float sum; float top; int index; };

__device__ inline void merge(Best& a, float max, float sum, float top, int index)
{
    float m = fmaxf(a.max, max);
    a.sum = (a.max == m ? a.sum : a.sum * power(a.max - m)) + (max == m ? sum : sum * power(max - m));
    a.max = m;
    if (top > a.top || (top == a.top && index < a.index))
    {
        a.top = top;
        a.index = index;
    }
}

__device__ inline float soft(float x, float cap) { return cap > 0.f ? cap * tanhf(x / cap) : x; }

template <int N> __device__ void learn(T* logits, i64 target, float* loss, u8* right, int width, float scale, float cap, int gradient)
{
    const float lowest = -3.402823466e38f;
    Best best = { lowest, 0.f, lowest, 0x7fffffff };
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> x = load<N>(logits + i);
        float most = lowest;
        int where = i;
        for (int j = 0; j < N; j++)
        {
            float value = soft(x[j], cap);
            if (value > most)
            {
                most = value;
                where = i + j;
            }
        }
        float m = fmaxf(best.max, most), sum = 0;
        for (int j = 0; j < N; j++)
            sum += power(soft(x[j], cap) - m);
        best.sum = (best.max == m ? best.sum : best.sum * power(best.max - m)) + sum;
        best.max = m;
        if (most > best.top)
        {
            best.top = most;
            best.index = where;
        }
    }
    __shared__ Best parts[32];
    for (int step = 16; step > 0; step >>= 1)
        merge(best, __shfl_xor_sync(0xffffffffu, best.max, step), __shfl_xor_sync(0xffffffffu, best.sum, step),
            __shfl_xor_sync(0xffffffffu, best.top, step), __shfl_xor_sync(0xffffffffu, best.index, step));
    if ((threadIdx.x & 31) == 0)
        parts[threadIdx.x >> 5] = best;
    __syncthreads();
    best = parts[0];
    for (int i = 1; i < blockDim.x >> 5; i++)
        merge(best, parts[i].max, parts[i].sum, parts[i].top, parts[i].index);
    float total = best.max + logf(best.sum);
    if (threadIdx.x == 0)
    {
        *loss = total - soft(wide(logits[target]), cap);
        *right = best.index == target;
    }
    if (!gradient)
        return;
    __syncthreads();
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> x = load<N>(logits + i);
        for (int j = 0; j < N; j++)
        {
            float value = soft(x[j], cap);
            float slope = (power(value - total) - (i + j == target ? 1.f : 0.f)) * scale;
            x.set(j, cap > 0.f ? slope * (1.f - value / cap * (value / cap)) : slope);
        }
        store(logits + i, x);
    }
}

extern "C" __global__ void __launch_bounds__(1024) learn(T* logits, const i64* targets, float* losses, u8* right, int width, float scale, float cap, int gradient, int packed)
{
    i64 row = blockIdx.x;
    if (packed)
        learn<16 / sizeof(T)>(logits + row * width, targets[row], losses + row, right + row, width, scale, cap, gradient);
    else
        learn<1>(logits + row * width, targets[row], losses + row, right + row, width, scale, cap, gradient);
}
