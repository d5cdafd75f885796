// The optimizer over all trained weights as flat arrays, four at a time; T is the type of the copy that products read.

// Norm of the gradient in one launch: blocks leave partial sums, and the last to finish adds them in order.
extern "C" __global__ void gradient_norm(const float* gradient, i64 count, float* partial, u32* finished, float* result, float unscale)
{
    float sum = 0;
    for (i64 i = (blockIdx.x * (i64)blockDim.x + threadIdx.x) * 4; i < count; i += (i64)gridDim.x * blockDim.x * 4)
    {
        if (i + 4 <= count)
        {
            Pack<float, 4> g = load<4>(gradient + i);
            for (int j = 0; j < 4; j++)
                sum += g[j] * unscale * (g[j] * unscale);
        }
        else
        {
            for (i64 k = i; k < count; k++)
                sum += gradient[k] * unscale * (gradient[k] * unscale);
        }
    }
    sum = block_sum(sum);
    __shared__ bool last;
    if (threadIdx.x == 0)
    {
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(finished, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last)
        return;
    float total = 0;
    for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x)
        total += __ldcg(partial + i);
    total = block_sum(total);
    if (threadIdx.x == 0)
    {
        *result = sqrtf(total);
        *finished = 0;
    }
}

// One step; the gradient is zero afterwards. A norm that is not finite leaves everything else as it was.
extern "C" __global__ void step(float* value, float* gradient, float* mean, float* square, T* copy, const float* norm, i64 count,
    float clip, float shrink, float beta1, float beta2, float epsilon, float spread, float rate, float unscale)
{
    float length = *norm;
    bool sound = length - length == 0.f;
    float scale = clip > 0.f ? fminf(1.f, clip / (length + 1e-6f)) * unscale : unscale;
    for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x)
    {
        if (sound)
        {
            float g = gradient[i] * scale, v = value[i] * shrink;
            float m = mean[i] * beta1 + g * (1.f - beta1), s = square[i] * beta2 + g * g * (1.f - beta2);
            v -= rate * m / (sqrtf(s) / spread + epsilon);
            value[i] = v;
            mean[i] = m;
            square[i] = s;
            if (copy)
                copy[i] = narrow<T>(v);
        }
        gradient[i] = 0.f;
    }
}
