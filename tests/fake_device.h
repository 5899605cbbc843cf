/* fake_device.h - a device for tests: its memory cannot be touched from the host.

   Device addresses lie in a region without access rights; the bytes are in a shadow beside it. Whoever follows a device pointer on the
   host crashes. `run` looks the shadow up and lets nn.h's CPU kernels work there; ops in `refuse` (or all) are left to nn.h's fallback. */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H
#include <sys/mman.h>

enum { FAKE_BYTES = 1 << 28 };
typedef struct fake_device {
    nn_backend backend;
    char *device, *shadow;
    size_t used;
    int64_t allocs, frees, runs, copies;
    int refuse_all, refuse_op;       /* an op id */
    int64_t fail_alloc;              /* > 0: that allocation fails */
    int64_t fail_copy;
    void *sent_to[8], *sent[8];      /* what was sent and has not arrived */
    size_t sent_bytes[8];
    int64_t sends, arrivals;
} fake_device;

static char *fake_host(fake_device *d, const void *p)
{
    size_t offset = (size_t)((const char *)p - d->device);
    return p && offset < FAKE_BYTES ? d->shadow + offset : NULL;
}
static void *fake_alloc(void *self, size_t bytes)
{
    fake_device *d = self;
    char *p = d->device + d->used;
    if (++d->allocs == d->fail_alloc || d->used + bytes > FAKE_BYTES) return NULL;
    memset(d->shadow + d->used, 0xFF, bytes);            /* NaN, so that reading what was never written shows */
    d->used += (bytes + 4095) & ~(size_t)4095;
    return p;
}
static void fake_free(void *self, void *memory, size_t bytes)
{
    fake_device *d = self;
    if (memory) { memset(fake_host(d, memory), 0xFF, bytes); d->frees++; }
}
static int fake_fails(fake_device *d) { return ++d->copies == d->fail_copy; }
static int fake_upload(void *self, void *to, const void *from, size_t n)   { if (fake_fails(self)) return 0; memcpy(fake_host(self, to), from, n); return 1; }
static int fake_download(void *self, void *to, const void *from, size_t n) { if (fake_fails(self)) return 0; memcpy(to, fake_host(self, from), n); return 1; }
static int fake_copy(void *self, void *to, const void *from, size_t n)     { memmove(fake_host(self, to), fake_host(self, from), n); return 1; }
static int fake_sync(void *self) { (void)self; return 1; }
static int fake_send(void *self, void *to, const void *from, size_t n)
{
    fake_device *d = self;
    int i = 0;
    while (i < 7 && d->sent_to[i] && d->sent_to[i] != to) i++;
    free(d->sent[i]);
    d->sent_to[i] = to;
    d->sent_bytes[i] = n;
    memcpy(d->sent[i] = malloc(n), from, n);
    d->sends++;
    return 1;
}
static int fake_arrive(void *self, void *to)
{
    fake_device *d = self;
    int i = 0;
    while (i < 8 && (d->sent_to[i] != to || !d->sent[i])) i++;
    if (i == 8) return 0;
    memcpy(fake_host(d, to), d->sent[i], d->sent_bytes[i]);
    free(d->sent[i]);
    d->sent[i] = NULL;
    d->arrivals++;
    return 1;
}
static int fake_run(void *self, const nn_call *call)
{
    fake_device *d = self;
    nn_call c = *call;
    int i;
    d->runs++;
    if (d->refuse_all || (d->refuse_op && c.op->id == d->refuse_op)) return 0;
    for (i = 0; i < c.nin; i++)  c.in[i].data = fake_host(d, c.in[i].data);
    for (i = 0; i < c.nout; i++) c.out[i].data = fake_host(d, c.out[i].data);
    for (i = 0; i < c.naux; i++) c.aux[i].data = fake_host(d, c.aux[i].data);
    if (c.pass == NN_BACKWARD) {
        for (i = 0; i < c.nin; i++)  c.din[i].data = fake_host(d, c.din[i].data);
        for (i = 0; i < c.nout; i++) c.dout[i].data = fake_host(d, c.dout[i].data);
    }
    return nn_run_on_cpu(&c);
}
static int fake_open(fake_device *d)
{
    memset(d, 0, sizeof *d);
    d->device = mmap(NULL, FAKE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->shadow = mmap(NULL, FAKE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (d->device == MAP_FAILED || d->shadow == MAP_FAILED) return 0;
    d->backend = (nn_backend){ .version = NN_BACKEND_VERSION, .name = "fake", .self = d, .alloc = fake_alloc, .free = fake_free, .upload = fake_upload,
                               .download = fake_download, .copy = fake_copy, .run = fake_run, .sync = fake_sync,
                               .send = fake_send, .arrive = fake_arrive };
    return 1;
}
static void fake_close(fake_device *d)
{
    for (int i = 0; i < 8; i++) free(d->sent[i]);
    munmap(d->device, FAKE_BYTES);
    munmap(d->shadow, FAKE_BYTES);
}
#endif
