/* Moving what the planner could not place: other orders of channels, padding, parts of
 * concatenations that lie elsewhere already.
 */

typedef struct {
    tensor x, y;
    float value; /* of padding */
    int32_t top, left; /* where x begins in y; negative: what is cut off */
    const channel_index *index; /* channels to pick; NULL: all in their order */
} copying;

static void run_copy(const copying *s, float *arena)
{
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const int32_t from_y = row - s->top, from_x = at - s->left;
            float *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            if (from_y < 0 || from_y >= s->x.h || from_x < 0 || from_x >= s->x.w) {
                for (int32_t c = 0; c < s->y.c; c++)
                    y[c] = s->value;
                continue;
            }
            const float *x = arena + s->x.at + (ptrdiff_t)from_y * s->x.row +
                             (ptrdiff_t)from_x * s->x.pixel;
            if (s->index == NULL)
                memcpy(y, x, (size_t)s->y.c * sizeof(float));
            else
                for (int32_t c = 0; c < s->y.c; c++)
                    y[c] = x[s->index[c]];
        }
}
