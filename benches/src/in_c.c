/* The cases in C, as a careful program is written: every result is looked at. */

#include <errno.h>
#include <stddef.h>
#include <infiniband/verbs.h>

#define BATCH 32
#define INLINE_LEN 64
#define SLOTS 64

struct remote {
	uint64_t addr;
	uint64_t len;
	uint32_t rkey;
};

/* `Raw` in rig.rs. */
struct rig {
	struct ibv_qp_ex *qp;
	struct ibv_qp_ex *quiet;
	struct ibv_qp_ex *taking;
	struct ibv_qp_ex *ud;
	struct ibv_ah *ah;
	struct ibv_cq_ex *cq;
	struct ibv_cq_ex *full;
	struct ibv_cq_ex *empty;
	struct ibv_sge *sges;
	const struct remote *remotes;
	struct ibv_recv_wr *chain;
	void *bytes;
	uint64_t addr;
	uint32_t lkey;
	uint32_t remote_qpn;
	uint32_t qkey;
	void (*rewind)(struct ibv_cq_ex *cq, uint32_t len);
};

/* Ends the program: in rig.rs. */
__attribute__((noreturn, cold)) void cost_fail(void);

/* Where results go that nobody wants, so that they are computed. */
static volatile uint64_t sink;

static inline void expect_completion(struct ibv_cq_ex *cq, uint64_t wr_id)
{
	struct ibv_poll_cq_attr attr = {};
	int ret;

	if (ibv_start_poll(cq, &attr))
		cost_fail();
	do {
		if (cq->status != IBV_WC_SUCCESS || cq->wr_id != wr_id)
			cost_fail();
	} while (!(ret = ibv_next_poll(cq)));
	ibv_end_poll(cq);
	if (ret != ENOENT)
		cost_fail();
}

void cost_c_send(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->qp;
	struct ibv_cq_ex *cq = rig->cq;
	struct ibv_sge sge = rig->sges[0];

	for (uint64_t wr_id = 0; wr_id < n; wr_id++) {
		ibv_wr_start(qp);
		qp->wr_id = wr_id;
		qp->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_send(qp);
		ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length);
		if (ibv_wr_complete(qp))
			cost_fail();
		expect_completion(cq, wr_id);
	}
}

void cost_c_writes(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->quiet;
	struct ibv_sge sge = rig->sges[0];
	struct remote remote = rig->remotes[0];

	for (uint64_t i = 0; i < n; i++) {
		ibv_wr_start(qp);
		for (size_t j = 0; j < BATCH; j++) {
			qp->wr_id = j;
			qp->wr_flags = j == BATCH - 1 ? IBV_SEND_SIGNALED : 0;
			ibv_wr_rdma_write(qp, remote.rkey, remote.addr);
			ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length);
		}
		if (ibv_wr_complete(qp))
			cost_fail();
	}
}

void cost_c_writes_done(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->qp;
	struct ibv_cq_ex *cq = rig->cq;
	struct ibv_sge sge = rig->sges[0];
	struct remote remote = rig->remotes[0];

	for (uint64_t i = 0; i < n; i++) {
		ibv_wr_start(qp);
		for (size_t j = 0; j < BATCH; j++) {
			qp->wr_id = j;
			qp->wr_flags = j == BATCH - 1 ? IBV_SEND_SIGNALED : 0;
			ibv_wr_rdma_write(qp, remote.rkey, remote.addr);
			ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length);
		}
		if (ibv_wr_complete(qp))
			cost_fail();
		expect_completion(cq, BATCH - 1);
	}
}

void cost_c_pieces(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->quiet;
	const struct ibv_sge *sges = rig->sges;
	const struct remote *remotes = rig->remotes;

	for (uint64_t i = 0; i < n; i++) {
		ibv_wr_start(qp);
		for (size_t j = 0; j < BATCH; j++) {
			qp->wr_id = j;
			qp->wr_flags = j == BATCH - 1 ? IBV_SEND_SIGNALED : 0;
			ibv_wr_rdma_write(qp, remotes[j].rkey, remotes[j].addr);
			ibv_wr_set_sge(qp, sges[j].lkey, sges[j].addr, sges[j].length);
		}
		if (ibv_wr_complete(qp))
			cost_fail();
	}
}

void cost_c_receives(const struct rig *rig, uint64_t n)
{
	struct ibv_qp *qp = &rig->quiet->qp_base;
	struct ibv_sge *sges = rig->sges;

	for (uint64_t i = 0; i < n; i++) {
		struct ibv_recv_wr wrs[BATCH], *bad;

		for (size_t j = 0; j < BATCH; j++) {
			wrs[j].wr_id = j;
			wrs[j].next = j < BATCH - 1 ? &wrs[j + 1] : NULL;
			wrs[j].sg_list = &sges[j];
			wrs[j].num_sge = 1;
		}
		if (ibv_post_recv(qp, wrs, &bad))
			cost_fail();
	}
}

void cost_c_receives_done(const struct rig *rig, uint64_t n)
{
	struct ibv_qp *qp = &rig->taking->qp_base;
	struct ibv_cq_ex *cq = rig->cq;
	struct ibv_sge *sges = rig->sges;

	for (uint64_t i = 0; i < n; i++) {
		struct ibv_recv_wr wrs[BATCH], *bad;
		struct ibv_poll_cq_attr attr = {};
		uint64_t wr_id = 0;
		int ret;

		for (size_t j = 0; j < BATCH; j++) {
			wrs[j].wr_id = j;
			wrs[j].next = j < BATCH - 1 ? &wrs[j + 1] : NULL;
			wrs[j].sg_list = &sges[j];
			wrs[j].num_sge = 1;
		}
		if (ibv_post_recv(qp, wrs, &bad))
			cost_fail();
		if (ibv_start_poll(cq, &attr))
			cost_fail();
		do {
			if (cq->status != IBV_WC_SUCCESS || cq->wr_id != wr_id)
				cost_fail();
			wr_id++;
		} while (!(ret = ibv_next_poll(cq)));
		ibv_end_poll(cq);
		if (ret != ENOENT || wr_id != BATCH)
			cost_fail();
	}
}

void cost_c_chain(const struct rig *rig, uint64_t n)
{
	struct ibv_qp *qp = &rig->quiet->qp_base;
	struct ibv_recv_wr *chain = rig->chain;

	for (uint64_t i = 0; i < n; i++) {
		struct ibv_recv_wr *bad;

		if (ibv_post_recv(qp, chain, &bad))
			cost_fail();
	}
}

void cost_c_poll(const struct rig *rig, uint64_t n)
{
	struct ibv_cq_ex *cq = rig->full;
	void (*rewind)(struct ibv_cq_ex *, uint32_t) = rig->rewind;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < n; i++) {
		struct ibv_poll_cq_attr attr = {};
		int ret;

		rewind(cq, 16);
		if (ibv_start_poll(cq, &attr))
			cost_fail();
		do {
			if (cq->status != IBV_WC_SUCCESS)
				cost_fail();
			sum += cq->wr_id;
			sum += ibv_wc_read_opcode(cq);
			sum += ibv_wc_read_byte_len(cq);
		} while (!(ret = ibv_next_poll(cq)));
		ibv_end_poll(cq);
		if (ret != ENOENT)
			cost_fail();
	}
	sink = sum;
}

void cost_c_inline(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->qp;
	struct ibv_cq_ex *cq = rig->cq;
	void *bytes = rig->bytes;

	for (uint64_t wr_id = 0; wr_id < n; wr_id++) {
		ibv_wr_start(qp);
		qp->wr_id = wr_id;
		qp->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_send(qp);
		ibv_wr_set_inline_data(qp, bytes, INLINE_LEN);
		if (ibv_wr_complete(qp))
			cost_fail();
		expect_completion(cq, wr_id);
	}
}

void cost_c_slice(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->qp;
	struct ibv_cq_ex *cq = rig->cq;
	uint64_t addr = rig->addr;
	uint32_t lkey = rig->lkey;

	for (uint64_t wr_id = 0; wr_id < n; wr_id++) {
		ibv_wr_start(qp);
		qp->wr_id = wr_id;
		qp->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_send(qp);
		ibv_wr_set_sge(qp, lkey, addr + wr_id % SLOTS * 64, 64);
		if (ibv_wr_complete(qp))
			cost_fail();
		expect_completion(cq, wr_id);
	}
}

void cost_c_empty(const struct rig *rig, uint64_t n)
{
	struct ibv_cq_ex *cq = rig->empty;

	for (uint64_t i = 0; i < n; i++) {
		struct ibv_poll_cq_attr attr = {};

		if (ibv_start_poll(cq, &attr) != ENOENT)
			cost_fail();
	}
}

void cost_c_datagram(const struct rig *rig, uint64_t n)
{
	struct ibv_qp_ex *qp = rig->ud;
	struct ibv_cq_ex *cq = rig->cq;
	struct ibv_sge sge = rig->sges[0];
	struct ibv_ah *ah = rig->ah;
	uint32_t remote_qpn = rig->remote_qpn;
	uint32_t qkey = rig->qkey;

	for (uint64_t wr_id = 0; wr_id < n; wr_id++) {
		ibv_wr_start(qp);
		qp->wr_id = wr_id;
		qp->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_send(qp);
		ibv_wr_set_ud_addr(qp, ah, remote_qpn, qkey);
		ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length);
		if (ibv_wr_complete(qp))
			cost_fail();
		expect_completion(cq, wr_id);
	}
}
