/* Pools that fit their windows to the size of the output; 1 x 1 is the mean of the whole map. */

typedef struct {
    tensor x, y;
} adaptive;
