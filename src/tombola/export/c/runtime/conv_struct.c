/* A sparse convolution: for each tile of places, each group of input planes and each output plane, its live weights. */
struct @NAME@_convolution@SUFFIX@ {
    const float *weights;
    const @OFFSET@ *offsets; /* of each weight: what it reads, from its group's base and the place */
    const @OFFSET@ *counts;  /* [groups][outputs], weights of each output in each group */
    const int32_t *bases;     /* [groups] */
    const float *bias;        /* [outputs] */
    const int32_t *target;    /* [outputs], where their planes begin */
    const int32_t *around;    /* [outputs], planes that are added, or NULL */
    int32_t groups, outputs, places;
    float low, high;
};

