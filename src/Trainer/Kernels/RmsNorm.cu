// Root-mean-square norm of rows. A block is blockDim.x threads a row by blockDim.y rows; several rows only with one warp each.

template <int N> __device__ void forward_row(const T* x, T* delta, const T* weight, T* y, float* rstd, int width, float eps)
{
    float squares = 0;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> a = load<N>(x + i);
        if (delta)
        {
            Pack<T, N> b = load<N>(delta + i);
            for (int j = 0; j < N; j++)
                a.set(j, a[j] + b[j]);
            store(delta + i, a);
        }
        for (int j = 0; j < N; j++)
            squares += a[j] * a[j];
    }
    float r = rsqrtf(block_sum(squares) / width + eps);
    if (threadIdx.x == 0)
        *rstd = r;
    const T* from = delta ? delta : x;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> a = load<N>(from + i), w = load<N>(weight + i);
        for (int j = 0; j < N; j++)
            a.set(j, rounded<T>(a[j] * r) * w[j]);
        store(y + i, a);
    }
}

// y = norm(x) · weight, or with delta: delta ← x + delta, y = norm(delta) · weight. rstd keeps 1 / rms of each row.
extern "C" __global__ void forward(const T* x, T* delta, const T* weight, T* y, float* rstd, i64 rows, int width, float eps, int packed)
{
    i64 row = blockIdx.x * (i64)blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    i64 at = row * width;
    if (packed)
        forward_row<16 / sizeof(T)>(x + at, delta ? delta + at : nullptr, weight, y + at, rstd + row, width, eps);
    else
        forward_row<1>(x + at, delta ? delta + at : nullptr, weight, y + at, rstd + row, width, eps);
}

template <int N> __device__ void backward_row(const T* dy, const T* x, const T* weight, float r, const T* onto, T* dx, int width)
{
    float dot = 0;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> g = load<N>(dy + i), a = load<N>(x + i), w = load<N>(weight + i);
        for (int j = 0; j < N; j++)
            dot += g[j] * w[j] * (a[j] * r);
    }
    dot = block_sum(dot) / width;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> g = load<N>(dy + i), a = load<N>(x + i), w = load<N>(weight + i), o;
        if (onto)
            o = load<N>(onto + i);
        for (int j = 0; j < N; j++)
            g.set(j, (onto ? o[j] : 0.f) + r * (g[j] * w[j] - a[j] * r * dot));
        store(dx + i, g);
    }
}

// dx = onto + gradient of the norm; onto may be absent, and dx may be dy or onto.
extern "C" __global__ void backward(const T* dy, const T* x, const T* weight, const float* rstd, const T* onto, T* dx, i64 rows, int width, int packed)
{
    i64 row = blockIdx.x * (i64)blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    i64 at = row * width;
    if (packed)
        backward_row<16 / sizeof(T)>(dy + at, x + at, weight, rstd[row], onto ? onto + at : nullptr, dx + at, width);
    else
        backward_row<1>(dy + at, x + at, weight, rstd[row], onto ? onto + at : nullptr, dx + at, width);
}

// partial[blockIdx.y] = sum over its rows of dy · x̂, one column a thread.
extern "C" __global__ void weight_gradient(const T* dy, const T* x, const float* rstd, float* partial, i64 rows, int width, int chunk)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width)
        return;
    float sum = 0;
    for (i64 row = (i64)blockIdx.y * chunk; row < rows && row < ((i64)blockIdx.y + 1) * chunk; row++)
        sum += wide(dy[row * width + column]) * rounded<T>(wide(x[row * width + column]) * rstd[row]);
    partial[(i64)blockIdx.y * width + column] = sum;
}
