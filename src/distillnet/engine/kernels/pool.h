/* Pooling: windows are cut off at the input's border, so a pool needs no border of zeros. */

typedef struct {
    tensor x, y;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t count_pad; /* whether an average counts the padding */
    int32_t divisor;   /* what an average is divided by; 0: the window's size */
} pool;

INLINE int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
