/* traffic.h - the fewest bytes that a call must move: each operand is read once, each result written once, what is added to is read too. */
static double traffic_bytes(const nn_view *v) { return v->data ? (double)nn_view_count(v) * (double)nn_dtype_bytes((nn_dtype)v->dtype) : 0; }
static double traffic_of(const nn_call *c)
{
    double bytes = 0;
    int i, back = c->pass == NN_BACKWARD, adds = c->op->id == NN_OP_accumulate;
    for (i = 0; i < c->nin; i++)  bytes += traffic_bytes(&c->in[i]);
    if (c->op->flags & NN_OP_MUTATES) for (i = 0; i < c->nin; i++) bytes += i == 1 && c->op->id != NN_OP_swap ? 0 : traffic_bytes(&c->in[i]);     /* not the gradient */
    for (i = 0; i < c->naux; i++) bytes += traffic_bytes(&c->aux[i]);
    for (i = 0; i < c->nout; i++) bytes += back ? traffic_bytes(&c->dout[i]) + traffic_bytes(&c->out[i]) : traffic_bytes(&c->out[i]) * (adds ? 2 : 1);
    if (back) for (i = 0; i < c->nin; i++) bytes += traffic_bytes(&c->din[i]) * (c->add >> i & 1 ? 2 : 1);
    return bytes;
}
