
/* The same for an image as a camera gives it: bytes (H, W, C), @ORDER@, of the network's size. What
 * normalises it is in the weights, so nothing here is in floats, and it takes no copy of it: the image
 * is read while the network runs, and must not lie in the arena.
 */
int @NAME@_run_pixels(const @NAME@_mission *mission, void *arena, size_t arena_bytes,
                      const uint8_t *pixels, float *out);
